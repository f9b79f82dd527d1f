"""Corruption robustness: accuracy under corruptions at five severities, with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import Corruptions, PluginValue
from stresslens.core.answers import NO_ANSWER, predicted
from stresslens.core.data import Split
from stresslens.core.draws import Draws, mix
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError
from stresslens.core.files import write_arrays
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.inspection import evaluating
from stresslens.core.json_file import PARTIAL, Seconds
from stresslens.core.pass_memory import images_at_once, logits_in_pieces
from stresslens.core.pass_time import foretell_passes
from stresslens.core.pieces import FLOAT
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import bounded_mean, wilson
from stresslens.robustness.corruption_file import PASSES, CorruptionFile, CorruptionLevels, SeverityLevel

SEVERITIES = (1, 2, 3, 4, 5)
BATCH = 256
COPIES = 8
"""A corruption holds about so many copies of its images at a time."""

OnProgress = Callable[[int, int], None]
"""Receives the number of finished passes over the images, and the number of all passes."""


def corrupt(
    folder: Path,
    model: nn.Module,
    split: Split,
    section: Corruptions | Sequence[PluginValue],
    *,
    source: str,
    base: Path,
    on_progress: OnProgress = lambda done, total: None,
) -> CorruptionFile:
    """Measures the accuracy of the model under every corruption at every severity. Writes
    `folder/result.json` and returns its contents.

    `source` is a fingerprint of the model and the images. A finished result with the same
    fingerprint is read, an unfinished one is resumed. `folder/result.npz` holds index (n,), labels
    (n,), and whether each image is classified correctly: clean (n,), right (corruptions,
    severities, n). Raises ConfigError if a corruption does not return images in [0, 1] of the same
    shape.
    """
    settings = section if isinstance(section, Corruptions) else Corruptions(list(section))
    bound = {_name(value): registry.resolve("corruptions", value, base=base) for value in settings.kinds}
    if len(bound) < len(settings.kinds):
        raise ConfigError("corruptions: each kind of corruption once")
    index = sampled_positions(len(split), settings.images, settings.seed)
    inputs = [source, settings.split, settings.kinds, settings.seed, index.tolist()]
    fingerprint = fingerprint_of([*inputs, *source_digests(settings.kinds, base=base)])
    if (finished := CorruptionFile.read_finished(folder, fingerprint)) is not None:
        return finished
    images = split.select(index)
    done, seconds = _passes(
        folder / PARTIAL, model, images, index, bound, settings.seed, fingerprint, on_progress
    )
    labels = images.labels.cpu().numpy()
    answers = np.array([[done[f"{name} {severity}"] for severity in SEVERITIES] for name in bound])
    clean, right = done["clean 0"] == labels, answers == labels
    result = CorruptionFile(
        fingerprint=fingerprint,
        split=settings.split,
        n=len(index),
        seed=settings.seed,
        clean=_accuracy(clean),
        no_answer=int((done["clean 0"] == NO_ANSWER).sum()),
        corruptions=[
            _levels(*corruption) for corruption in zip(bound, settings.kinds, right, answers == NO_ANSWER)
        ],
        mean=bounded_mean(right.mean((0, 1)), (0.0, 1.0)),
        cost=Seconds(seconds=seconds),
    )
    arrays = {
        "index": index.numpy(),
        "labels": labels,
        "clean": clean,
        "right": right,
    }
    _save(folder / "result.npz", {**arrays, "fingerprint": np.array(fingerprint)})
    result.save(folder)
    return result


def _passes(
    file: Path,
    model: nn.Module,
    images: Split,
    index: Tensor,
    bound: Mapping[str, registry.Bound],
    seed: int,
    fingerprint: str,
    on_progress: OnProgress,
) -> tuple[dict[str, Any], float]:
    """For each pass "<name> <severity>", (n,) the predicted class of each image (`core.answers`);
    and the seconds that all passes took. `file` holds the finished passes."""
    began, done = time.perf_counter(), _finished_passes(file, fingerprint)
    before = float(done.pop("seconds", np.zeros(())))
    passes = [
        ("clean", None, 0),
        *((name, value, severity) for name, value in bound.items() for severity in SEVERITIES),
    ]
    left = sum(f"{name} {severity}" not in done for name, _, severity in passes)
    what, quicker = (
        f"corrupting {len(index):,} images {left} times",
        "corruptions: {images: 100, …}",
    )
    foretell_passes(what, model, images.floats(images.images[:2]), left * len(index), quicker)
    copies = COPIES * FLOAT * images.images.shape[1:].numel()
    size = images_at_once(model, images.shape, BATCH, more=copies)
    for number, (name, value, severity) in enumerate(passes):
        on_progress(number, len(passes))
        if (key := f"{name} {severity}") not in done:
            batches = _corrupted(images, index, value, severity, name, mix(seed, *name.encode()), size)
            (done[key],) = answers_of([model], batches)
            spent = np.array(before + time.perf_counter() - began)
            _save(file, {**done, "fingerprint": np.array(fingerprint), "seconds": spent})
    on_progress(len(passes), len(passes))
    return done, before + time.perf_counter() - began


def _levels(
    name: str, value: PluginValue, right: NDArray[np.bool_], missing: NDArray[np.bool_]
) -> CorruptionLevels:
    """The accuracies under one corruption, from `right` and `missing` (no answer), (severities, n)
    each."""
    return CorruptionLevels(
        name=name,
        options=dict(registry.name_and_options("corruptions", value)[1]),
        severities=[
            SeverityLevel(severity=s, accuracy=_accuracy(row), no_answer=int(none.sum()))
            for s, row, none in zip(SEVERITIES, right, missing)
        ],
    )


def _name(value: PluginValue) -> str:
    """The name of a corruption in the result: its plug-in and the options that are given."""
    name, options = registry.name_and_options("corruptions", value)
    return " ".join([name.rpartition(":")[2], *(f"{key}={given}" for key, given in options.items())])


def _finished_passes(file: Path, fingerprint: str) -> dict[str, Any]:
    """The finished passes of an interrupted measurement; empty if it had other inputs."""
    if not file.is_file():
        return {}
    saved = PASSES.read(file)
    # version 0.1 kept whether an image is right, which does not say which ones have no answer
    old = any(saved[key].dtype == bool for key in saved)
    return saved if str(saved.pop("fingerprint", "")) == fingerprint and not old else {}


def _save(file: Path, arrays: dict[str, Any]) -> None:
    write_arrays(file, arrays, compressed=True)


def _corrupted(
    images: Split,
    index: Tensor,
    corruption: registry.Bound | None,
    severity: int,
    name: str,
    seed: int,
    size: int,
) -> Iterator[Tensor]:
    """Batches of `size` corrupted images. The random draws depend on the image and the
    corruption, not on the severity or the batch."""
    for x, _, places in images.batches(size):
        if corruption is None:
            yield x
            continue
        corrupted = corruption(x=x, draws=Draws(seed, index.to(places.device)[places]), severity=severity)
        if (
            not isinstance(corrupted, Tensor)
            or corrupted.shape != x.shape
            or not bool(((corrupted >= 0) & (corrupted <= 1)).all())
        ):
            got = (
                f"shape {tuple(corrupted.shape)}"
                if isinstance(corrupted, Tensor)
                else f"a {type(corrupted).__name__}"
            )
            raise ConfigError(
                f"corruption {name} returned {got} for {tuple(x.shape)}; expected as many images in [0, 1]"
            )
        yield corrupted


def answers_of(models: Sequence[nn.Module], batches: Iterator[Tensor]) -> NDArray[np.int64]:
    """(models, n) the predicted class of each image by each model, or `NO_ANSWER`."""
    with ExitStack() as evaluated, torch.no_grad():
        for model in models:
            evaluated.enter_context(evaluating(model))
        parts = [
            torch.stack([predicted(logits_in_pieces(model, as_input(x, model))) for model in models])
            for x in batches
        ]
    return torch.cat(parts, 1).cpu().numpy()


def _accuracy(right: NDArray[np.bool_]) -> Estimate:
    return wilson(int(right.sum()), len(right))
