"""Certified accuracy: computes certified radii, within which the prediction provably stays the
same, and the curve of certified accuracy over a split."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import PluginValue
from stresslens.config.threat_model import norm_of
from stresslens.core.answers import answered
from stresslens.core.attack_base import attacked
from stresslens.core.attempts import Attempts
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.dtypes import as_input, device_of
from stresslens.core.errors import ConfigError
from stresslens.core.files import write_arrays
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.json_file import PARTIAL, Seconds
from stresslens.core.pass_time import foretell_passes
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Estimate
from stresslens.evaluation.scores import logits_of
from stresslens.metrics.intervals import Floats, wilson
from stresslens.robustness.certificate_file import PARTIAL_RADII, CertificateFile, CertifiedLevel

CHUNK = 4
"""The number of images that are certified together; progress is saved between two chunks."""
PASSES = 3
"""A gradient, in which the cost of a certificate is counted, takes about three forward passes."""
SAVE_SECONDS = 10.0
POINTS = 11

OnProgress = Callable[[int, int], None]
"""Receives the number of certified images, and the number of all images."""


def certify(
    home: Path,
    model: nn.Module,
    split: Split,
    certificates: Sequence[PluginValue],
    *,
    source: str,
    base: Path,
    split_name: str = "test",
    images: int | Literal["all"] = 1000,
    radii: Sequence[float] | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
    on_result: Callable[[CertificateFile], None] = lambda result: None,
) -> list[CertificateFile]:
    """Computes each certificate on the images, and writes `home/<name>-<8 hex>/result.json`.
    Returns the contents of these files. A finished file is only read. After a certificate fails the
    others go on, and its error is raised at the end; `on_result` gets each result.

    `source` is a fingerprint of the model and the images. `radii` are the points of the curve, by
    default 11 from 0 to the largest certified radius. `result.npz` has index, labels and radius (n,):
    NaN if it abstains, -inf if it predicts another class. Raises ConfigError, before any computing,
    for one without a norm or that can certify no image.
    """
    bound = [(value, registry.resolve("certificates", value, base=base)) for value in certificates]
    norms = [norm_of(*each) for each in bound]
    limits = [certificate.answer_beside("largest_radius") for _, certificate in bound]
    index = sampled_positions(len(split), images, seed)
    results, attempts = [], Attempts()
    for number, (value, certificate) in enumerate(bound):
        name, options = registry.name_and_options("certificates", value)
        settings = [source, split_name, name, dict(options), seed, index.tolist()]
        fingerprint = fingerprint_of([*settings, *source_digests(value, base=base)])
        folder = home / f"{name.rpartition(':')[2]}-{fingerprint[:8]}"
        with attempts.part(name.rpartition(":")[2]):
            result = CertificateFile.read_finished(folder, fingerprint)
            if result is None:
                count = partial(_advance, on_progress, number * len(index), len(bound) * len(index))
                chosen = (split, certificate, index, seed)
                certified, seconds = _radii(folder, model, *chosen, fingerprint, count)
                result = CertificateFile(
                    fingerprint=fingerprint,
                    certificate=name.rpartition(":")[2],
                    options=dict(options),
                    norm=norms[number],
                    split=split_name,
                    n=len(index),
                    seed=seed,
                    abstained=int(np.isnan(certified).sum()),
                    largest_radius=limits[number],
                    no_answer=int((~answered(logits_of(model, split.select(index)))).sum()),
                    curve=[_level(certified, radius) for radius in _curve_radii(certified, radii)],
                    smoothed_accuracy=_share(certified >= 0),
                    cost=Seconds(seconds=seconds),
                )
                _save(folder, result, index, split.labels[index], certified)
            results.append(result)
            on_result(result)
    attempts.raise_failed()
    return results


def _save(
    folder: Path, result: CertificateFile, index: Tensor, labels: Tensor, certified: NDArray[np.floating]
) -> None:
    """Writes result.npz and at last result.json, which marks a finished result."""
    arrays = {"index": index.numpy(), "labels": labels.cpu().numpy(), "radius": certified}
    write_arrays(folder / "result.npz", arrays)
    result.save(folder)
    (folder / "partial.npz").unlink(missing_ok=True)


def _advance(on_progress: OnProgress, before: int, total: int, done: int) -> None:
    on_progress(before + done, total)


def _radii(
    folder: Path,
    model: nn.Module,
    split: Split,
    certificate: registry.Bound,
    index: torch.Tensor,
    seed: int,
    fingerprint: str,
    on_progress: Callable[[int], None],
) -> tuple[Floats, float]:
    """(n,) the certified radii, and the seconds that they took. An interrupted computation
    resumes."""
    certified, seconds = np.zeros(0), 0.0
    if (folder / PARTIAL).is_file():
        saved = PARTIAL_RADII.read(folder / PARTIAL)
        if str(saved["fingerprint"]) == fingerprint:
            certified, seconds = saved["radius"], float(saved["seconds"])
    began = saved_at = time.perf_counter()
    what = f"certifying {len(index) - len(certified):,} images"
    passes = PASSES * float(certificate.answer_beside("cost") or 1) * (len(index) - len(certified))
    foretell_passes(what, model, split.floats(split.images[index[:2]]), passes, "fewer images (--images 10)")
    with attacked(model, seed=seed):
        while len(certified) < len(index):
            on_progress(len(certified))
            rows = index[len(certified) : len(certified) + CHUNK]
            images = split.select(rows)
            x, y = as_input(images.floats(images.images[:]), model), images.labels.to(device_of(model))
            radius = certificate(model=model, x=x, y=y, draws=Draws(seed, rows))
            if not isinstance(radius, torch.Tensor) or radius.shape != (len(rows),):
                got = (
                    f"shape {tuple(radius.shape)}"
                    if isinstance(radius, torch.Tensor)
                    else f"a {type(radius).__name__}"
                )
                raise ConfigError(
                    f"the certificate returned {got} for {len(rows)} images; expected a radius for each"
                )
            certified = np.concatenate([certified, radius.detach().double().cpu().numpy()])
            if time.perf_counter() - saved_at > SAVE_SECONDS:
                saved_at = time.perf_counter()
                state = {
                    "radius": certified,
                    "seconds": np.array(seconds + saved_at - began),
                    "fingerprint": np.array(fingerprint),
                }
                write_arrays(folder / PARTIAL, state)
    on_progress(len(certified))
    return certified, seconds + time.perf_counter() - began


def _curve_radii(certified: Floats, radii: Sequence[float] | None) -> list[float]:
    """The radii of the curve: those given, or `POINTS` from 0 to the largest certified radius."""
    if radii is not None:
        return list(radii)
    top = max((float(radius) for radius in certified if math.isfinite(radius)), default=0.0)
    return [round(float(radius), 12) for radius in np.linspace(0, top, POINTS)] if top > 0 else [0.0]


def _level(certified: Floats, radius: float) -> CertifiedLevel:
    beyond = certified > radius if radius else certified >= 0
    return CertifiedLevel(radius=radius, certified=_share(beyond))


def _share(counted: np.ndarray) -> Estimate:
    return wilson(int(counted.sum()), len(counted))
