"""Images as the world spoils them: a model's accuracy over corruptions and severities, each with
its interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import Corruptions, PluginValue
from stresslens.core.data import Split
from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_arrays, write_atomically, write_json
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.inspection import evaluating
from stresslens.core.json_file import Seconds
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import bootstrap_mean, wilson
from stresslens.robustness.corruption_file import CorruptionFile, CorruptionLevels, SeverityLevel

SEVERITIES = (1, 2, 3, 4, 5)
BATCH = 256

Tell = Callable[[int, int], None]
"""How many passes are done, of how many."""


def corrupt(
    folder: Path,
    model: nn.Module,
    split: Split,
    asked: Corruptions | Sequence[PluginValue],
    *,
    of: str,
    base: Path,
    tell: Tell = lambda done, total: None,
) -> CorruptionFile:
    """Passes the images through every corruption at every severity, and through the model; returns
    what `folder/result.json` holds.

    `of` names the model and the images (a fingerprint): a result of the same is read, a part of it
    gone on with. Whether each image was answered right is in `folder/result.npz`: index (n,),
    labels (n,), clean (n,), right (corruptions, severities, n). Raises ConfigError for a corruption
    that returns anything but such images.
    """
    settings = asked if isinstance(asked, Corruptions) else Corruptions(list(asked))
    bound = {_name(value): registry.resolve("corruptions", value, base=base) for value in settings.kinds}
    if len(bound) < len(settings.kinds):
        raise ConfigError("corruptions: each kind of corruption once")
    index = sampled_positions(len(split), settings.images, settings.seed)
    what = [of, settings.split, settings.kinds, settings.seed, index.tolist()]
    fingerprint = fingerprint_of([*what, *registry.source_digests(settings.kinds, base=base)])
    if (kept := CorruptionFile.read_finished(folder, fingerprint)) is not None:
        return kept
    images = split.select(index)
    done, seconds = _passes(
        folder / "partial.npz", model, images, index, bound, settings.seed, fingerprint, tell
    )
    right = np.array([[done[f"{name} {severity}"] for severity in SEVERITIES] for name in bound])
    result = CorruptionFile(
        fingerprint=fingerprint,
        split=settings.split,
        n=len(index),
        seed=settings.seed,
        clean=_accuracy(done["clean 0"]),
        corruptions=[_levels(*each) for each in zip(bound, settings.kinds, right)],
        mean=bootstrap_mean(right.mean((0, 1))),
        cost=Seconds(seconds=seconds),
    )
    arrays = {
        "index": index.numpy(),
        "labels": images.labels.cpu().numpy(),
        "clean": done["clean 0"],
        "right": right,
    }
    _save(folder / "result.npz", {**arrays, "fingerprint": np.array(fingerprint)})
    write_json(folder / "result.json", result.as_json())
    (folder / "partial.npz").unlink(missing_ok=True)
    return result


def _passes(
    file: Path,
    model: nn.Module,
    images: Split,
    index: Tensor,
    bound: Mapping[str, registry.Bound],
    seed: int,
    fingerprint: str,
    tell: Tell,
) -> tuple[dict[str, Any], float]:
    """Which images are answered right in each pass, by its name and severity, and the seconds that
    the passes took; `file` keeps what is finished."""
    began, done = time.perf_counter(), _begun(file, fingerprint)
    before = float(done.pop("seconds", np.zeros(())))
    passes = [
        ("clean", None, 0),
        *((name, value, severity) for name, value in bound.items() for severity in SEVERITIES),
    ]
    for place, (name, value, severity) in enumerate(passes):
        tell(place, len(passes))
        if (key := f"{name} {severity}") not in done:
            done[key] = _right(
                model, _spoiled(images, index, value, severity, name, mix(seed, *name.encode()))
            )
            spent = np.array(before + time.perf_counter() - began)
            _save(file, {**done, "fingerprint": np.array(fingerprint), "seconds": spent})
    tell(len(passes), len(passes))
    return done, before + time.perf_counter() - began


def _levels(name: str, value: PluginValue, right: NDArray[np.bool_]) -> CorruptionLevels:
    """The accuracies of one corruption, of `right` (severities, n)."""
    return CorruptionLevels(
        name=name,
        options=dict(registry.name_and_options("corruptions", value)[1]),
        severities=[SeverityLevel(severity=s, accuracy=_accuracy(row)) for s, row in zip(SEVERITIES, right)],
    )


def _name(value: PluginValue) -> str:
    """What a corruption is called in the result: its name and the options given."""
    name, options = registry.name_and_options("corruptions", value)
    return " ".join([name.rpartition(":")[2], *(f"{key}={given}" for key, given in options.items())])


def _begun(file: Path, fingerprint: str) -> dict[str, Any]:
    """The passes that an earlier attempt has finished."""
    if not file.is_file():
        return {}
    kept = read_arrays(file, f"there is no {file}")
    return kept if str(kept.pop("fingerprint", "")) == fingerprint else {}


def _save(file: Path, arrays: dict[str, Any]) -> None:
    write_atomically(file, lambda stream: np.savez_compressed(stream, **arrays))


def _spoiled(
    images: Split, index: Tensor, corruption: registry.Bound | None, severity: int, name: str, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of corrupted images with their labels. An image's draws are its own, and the same at
    every severity."""
    for x, y, places in images.batches(BATCH):
        if corruption is None:
            yield x, y
            continue
        found = corruption(x, Draws(seed, index.to(places.device)[places]), severity)
        if (
            not isinstance(found, Tensor)
            or found.shape != x.shape
            or not bool(((found >= 0) & (found <= 1)).all())
        ):
            got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ConfigError(
                f"corruption {name} returned {got} for {tuple(x.shape)}; expected as many images in [0, 1]"
            )
        yield found, y


def _right(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> NDArray[np.bool_]:
    first = next(model.parameters(), torch.empty(0))
    with evaluating(model), torch.no_grad():
        return np.concatenate(
            [
                (model(x.to(first.device, first.dtype)).argmax(1) == y.to(first.device)).cpu().numpy()
                for x, y in batches
            ]
        )


def _accuracy(right: NDArray[np.bool_]) -> Estimate:
    return wilson(int(right.sum()), len(right))
