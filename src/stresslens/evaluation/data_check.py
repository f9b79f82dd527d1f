"""The data check: duplicates, and every plug-in of the kind `checks`, on the images and labels of a data set.

Each problem is reported as a Finding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stresslens.config import registry
from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.files import read_json, write_json
from stresslens.core.image_files import digest
from stresslens.core.picture_facts import ClassEdges, Measures, PictureFacts
from stresslens.core.progress import advance
from stresslens.core.splits import floats_at, image_names, split_numbers
from stresslens.core.types import Finding
from stresslens.evaluation.duplicates import duplicate_findings
from stresslens.evaluation.near_duplicates import copies_are_distinguishable, small_pictures

VERSION = 7
EXAMPLES, EXAMPLE_VALUES = 200, 200 * 3 * 128 * 128
"""Faults are planted in at most so many images, and so many pixel values."""


def data_findings(data: Data) -> list[Finding]:
    """The findings of a data set's loader and of `check_data`.

    They come from the cache if the same images, labels, file names, groups and sizes were checked
    before.
    """
    columns = {
        name: {fact: c.tolist() for fact, c in split.columns.items()} for name, split in data.splits.items()
    }
    facts = digest(json.dumps([data.fit, columns], sort_keys=True, default=str).encode()).hex()
    file = f"{data.fingerprint}-{facts}-{VERSION}.json"
    for cache in readable_caches():
        with suppress(StresslensError, TypeError):
            return [*data.findings, *map(Finding.from_json, read_json(cache / "checks" / file))]
    findings = check_data(data)
    with suppress(StresslensError):  # without a place for them they are looked for again
        write_json(writable_cache("checks") / file, [finding.as_json() for finding in findings])
    return [*data.findings, *findings]


def check_data(data: Data) -> list[Finding]:
    """The findings on duplicates, and those of all checks that come with stresslens."""
    pictures, small = _facts(data)
    return [
        *duplicate_findings(data, small, pictures),
        *(_checked(registry.resolve("checks", name), data, pictures) for name in registry.names("checks")),
    ]


def chosen_findings(data: Data, checks: Sequence[Any], *, base: Path) -> list[Finding]:
    """The findings of the named checks alone: names, `{name: options}`, or your own
    (`file.py:function`, relative to `base`). Raises ConfigError for others."""
    bound = [registry.resolve("checks", check, base=base) for check in checks]
    pictures = _facts(data)[0] if any(each.asks_for("pictures") for each in bound) else None
    return [_checked(each, data, pictures) for each in bound]


def _checked(check: registry.Bound, data: Data, pictures: PictureFacts | None) -> Finding:
    found = check(data=data, pictures=pictures)
    if not isinstance(found, Finding):
        name = getattr(check.function, "__name__", "check")
        raise ConfigError(f"the check {name} returned {type(found).__name__}; expected a Finding")
    return found


def _facts(data: Data) -> tuple[PictureFacts, NDArray[np.uint8]]:
    """What is measured of all images, and their small pictures (N, 32, 32)."""
    parts: list[Measures] = []
    small: list[NDArray[np.uint8]] = []
    edges: ClassEdges | None = None
    for name, split in data.splits.items():
        done, labels = 0, split.labels.cpu()
        for piece in split.pieces(1024):
            x = split.floats(piece.cpu())
            parts.append(Measures.of(x))
            small.append(small_pictures(x.mean(1, keepdim=True)))
            if name == "train":
                found = ClassEdges.of(x, labels[done : done + len(x)], len(data.classes))
                edges = found if edges is None else edges + found
            done += len(x)
            advance(f"checking {data.name}, {name}", done, len(split))
    assert edges is not None
    labels = torch.cat([split.labels.cpu() for split in data.splits.values()])
    pictures = np.concatenate(small)
    facts = PictureFacts(
        Measures.joined(parts),
        image_names(data),
        split_numbers(data),
        labels.numpy(),
        edges,
        _examples(data),
        not copies_are_distinguishable(pictures, labels.numpy()),
    )
    return facts, pictures


def _examples(data: Data) -> torch.Tensor:
    """Training images (n, C, H, W), drawn at random."""
    values = data.train.images.shape[1:].numel()
    count = min(EXAMPLES, len(data.train), max(1, EXAMPLE_VALUES // values))
    rows = np.sort(np.random.default_rng(0).permutation(len(data.train))[:count])
    return data.train.floats(data.train.images[torch.from_numpy(rows)].cpu())


def shown_images(data: Data, found: Sequence[Finding], most: int = 8) -> Mapping[str, torch.Tensor]:
    """Images to look at, (n, C, H, W) in [0, 1], at most so many of each sign, by its name."""
    return {finding.audit: floats_at(data, finding.places[:most]) for finding in found if finding.places}
