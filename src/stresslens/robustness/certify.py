"""Radii within which a model provably keeps its answer: certificates over a split, and the curve of
certified accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from stresslens.config import registry
from stresslens.config.schema import PluginValue
from stresslens.config.threat_model import norm_of
from stresslens.core.attack_base import attacked
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_arrays, write_atomically, write_json
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.json_file import Seconds
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import Floats, wilson
from stresslens.robustness.certificate_file import CertificateFile, CertifiedLevel

CHUNK = 4
"""Images certified between two looks at the clock."""
SAVE_SECONDS = 10.0
POINTS = 11

Tell = Callable[[int, int], None]
"""How many images are certified, of how many."""


def certify(
    home: Path,
    model: nn.Module,
    split: Split,
    certificates: Sequence[PluginValue],
    *,
    of: str,
    base: Path,
    split_name: str = "test",
    images: int | Literal["all"] = 1000,
    radii: Sequence[float] | None = None,
    seed: int = 0,
    tell: Tell = lambda done, total: None,
) -> list[CertificateFile]:
    """One result for each certificate, as `home/<name>-<8 hex>/result.json` holds it; found there
    finished, it is read.

    `of` names the model and the images (a fingerprint); `radii` are where the curve is told, by
    default 11 of them from 0 to the largest certified. `result.npz` has index (n,), labels (n,) and
    radius (n,): NaN where the certificate abstained, -inf where it answers another class. Raises
    ConfigError, before any computing, for a certificate that does not say its norm.
    """
    bound = [(value, registry.resolve("certificates", value, base=base)) for value in certificates]
    norms = [norm_of(value, each) for value, each in bound]
    index = sampled_positions(len(split), images, seed)
    results = []
    for place, ((value, certificate), norm) in enumerate(zip(bound, norms)):
        name, options = registry.name_and_options("certificates", value)
        what = [of, split_name, name, dict(options), seed, index.tolist()]
        fingerprint = fingerprint_of([*what, *registry.source_digests(value, base=base)])
        folder = home / f"{name.rpartition(':')[2]}-{fingerprint[:8]}"
        if (kept := CertificateFile.read_finished(folder, fingerprint)) is not None:
            results.append(kept)
            continue

        def told(done: int, place: int = place) -> None:
            tell(place * len(index) + done, len(bound) * len(index))

        found, seconds = _radii(folder, model, split, certificate, index, seed, fingerprint, told)
        arrays = {"index": index.numpy(), "labels": split.labels[index].cpu().numpy(), "radius": found}
        write_atomically(folder / "result.npz", lambda file, arrays=arrays: np.savez(file, **arrays))  # type: ignore[misc]
        result = CertificateFile(
            fingerprint=fingerprint,
            certificate=name.rpartition(":")[2],
            options=dict(options),
            norm=norm,
            split=split_name,
            n=len(index),
            seed=seed,
            abstained=int(np.isnan(found).sum()),
            curve=[_level(found, radius) for radius in _ladder(found, radii)],
            smoothed_accuracy=_share(found >= 0),
            cost=Seconds(seconds=seconds),
        )
        write_json(folder / "result.json", result.as_json())
        (folder / "partial.npz").unlink(missing_ok=True)
        results.append(result)
    return results


def _radii(
    folder: Path,
    model: nn.Module,
    split: Split,
    certificate: registry.Bound,
    index: torch.Tensor,
    seed: int,
    fingerprint: str,
    told: Callable[[int], None],
) -> tuple[Floats, float]:
    """(n,) radii and the seconds they took, going on where an earlier attempt stopped."""
    found, seconds = np.zeros(0), 0.0
    if (folder / "partial.npz").is_file():
        kept = read_arrays(folder / "partial.npz", "there is no partial result")
        if str(kept["fingerprint"]) == fingerprint:
            found, seconds = kept["radius"], float(kept["seconds"])
    first = next(model.parameters(), torch.empty(0))
    began = saved = time.perf_counter()
    with attacked(model, seed=seed):
        while len(found) < len(index):
            told(len(found))
            rows = index[len(found) : len(found) + CHUNK]
            own = split.select(rows)
            x, y = own.floats(own.images[:]).to(first.device, first.dtype), own.labels.to(first.device)
            radius = certificate(model, x, y, Draws(seed, rows))
            if not isinstance(radius, torch.Tensor) or radius.shape != (len(rows),):
                got = (
                    f"shape {tuple(radius.shape)}"
                    if isinstance(radius, torch.Tensor)
                    else f"a {type(radius).__name__}"
                )
                raise ConfigError(
                    f"the certificate returned {got} for {len(rows)} images; expected a radius for each"
                )
            found = np.concatenate([found, radius.detach().double().cpu().numpy()])
            if time.perf_counter() - saved > SAVE_SECONDS:
                saved = time.perf_counter()
                state = {
                    "radius": found,
                    "seconds": np.array(seconds + saved - began),
                    "fingerprint": np.array(fingerprint),
                }
                write_atomically(folder / "partial.npz", lambda file, state=state: np.savez(file, **state))  # type: ignore[misc]
    told(len(found))
    return found, seconds + time.perf_counter() - began


def _ladder(found: Floats, radii: Sequence[float] | None) -> list[float]:
    if radii is not None:
        return list(radii)
    top = max((float(radius) for radius in found if math.isfinite(radius)), default=0.0)
    return [round(float(radius), 12) for radius in np.linspace(0, top, POINTS)] if top > 0 else [0.0]


def _level(found: Floats, radius: float) -> CertifiedLevel:
    return CertifiedLevel(radius=radius, certified=_share(found > radius if radius else found >= 0))


def _share(held: np.ndarray) -> Estimate:
    return wilson(int(held.sum()), len(held))
