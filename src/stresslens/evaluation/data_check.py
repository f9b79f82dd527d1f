"""Data-quality check: duplicates, leakage between splits, label noise, class imbalance, shortcuts.

Each problem is reported as a Finding.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.class_names import alike
from stresslens.core.data import Data, Split
from stresslens.core.errors import StresslensError
from stresslens.core.files import read_json, write_json
from stresslens.core.image_files import digest
from stresslens.core.progress import advance
from stresslens.core.splits import image_names
from stresslens.core.text import counted
from stresslens.core.types import Finding
from stresslens.evaluation.duplicates import LISTED, Severity, duplicate_findings
from stresslens.evaluation.near_duplicates import small_pictures
from stresslens.metrics.intervals import wilson

VERSION = 5
TINY = 20
"""A class with fewer training images is tiny. With fewer test images, its recall is known to ±20
percentage points at best."""
IMBALANCE = (3, 10)
"""Ratio of the largest to the smallest class: minor from the first value on, serious from the
second."""
SHORTCUT = (0.25, 0.5)
"""How far a shortcut gets from the majority baseline (0) to 100 % accuracy (1): minor from the
first value on, serious from the second."""
PROBED = 20_000
"""Most training images that are searched for a shortcut."""


def data_findings(data: Data) -> list[Finding]:
    """The findings of a data set's loader and of `check_data`.

    They come from the cache if the same images, labels, file names, groups and sizes were checked
    before.
    """
    columns = {
        name: {fact: c.tolist() for fact, c in split.columns.items()} for name, split in data.splits.items()
    }
    facts = digest(json.dumps(columns, sort_keys=True, default=str).encode()).hex()
    file = f"{data.fingerprint}-{facts}-{VERSION}.json"
    for cache in readable_caches():
        with suppress(StresslensError, TypeError):
            return [*data.findings, *map(Finding.from_json, read_json(cache / "checks" / file))]
    findings = check_data(data)
    with suppress(StresslensError):  # without a place for them they are looked for again
        write_json(writable_cache("checks") / file, [finding.as_json() for finding in findings])
    return [*data.findings, *findings]


def check_data(data: Data) -> list[Finding]:
    """All findings on images and labels.

    They are about duplicates, duplicates with two labels, constant images, classes, groups and
    shortcuts.
    """
    names = image_names(data)
    features = [_features(split, f"checking {data.name}, {name}") for name, split in data.splits.items()]
    small, colours, spans = (np.concatenate(values) for values in zip(*features))
    return [
        *duplicate_findings(data, small, names),
        _constant(spans, names),
        *_classes(data),
        _groups(data),
        *_shortcuts(data, colours[: len(data.train)]),
    ]


def _features(split: Split, what: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Small grey picture (32, 32), mean colour (channels) and range of each image."""
    small, colours, spans = [], [], []
    done = 0
    for piece in split.pieces(1024):
        x = split.floats(piece.cpu())
        small.append(small_pictures(x.mean(1, keepdim=True)))
        colours.append(x.mean((2, 3)).numpy())
        spans.append((x.amax((2, 3)) - x.amin((2, 3))).amax(1).numpy())
        done += len(x)
        advance(what, done, len(split))
    return np.concatenate(small), np.concatenate(colours), np.concatenate(spans)


def _constant(spans: NDArray[np.float32], names: list[str]) -> Finding:
    constant = np.flatnonzero(spans == 0)
    n = len(spans)
    if not len(constant):
        return Finding("constant images", "no sign", "none", f"none among {n} images", n)
    items = tuple(names[k] for k in constant[:LISTED])
    severity: Severity = "serious" if len(constant) > n / 100 else "minor"
    return Finding(
        "constant images",
        "sign",
        severity,
        f"{len(constant)} of {n} images show one colour only",
        n,
        "remove them",
        items,
    )


def _names_alike(data: Data) -> Finding:
    """Class names that differ only by case, blanks or Unicode form."""
    groups, n = alike(data.classes), len(data.classes)
    if not groups:
        evidence = f"the names of {n} classes differ by more than case, blanks and Unicode form"
        return Finding("class names", "no sign", "none", evidence, n)
    return Finding(
        "class names",
        "sign",
        "serious",
        f"{sum(map(len, groups))} of {n} class names differ from another only by case, blanks or Unicode "
        f"form: {'; '.join(' = '.join(map(repr, group)) for group in groups[:3])}",
        n,
        "merge the classes if they are one, or rename them",
        tuple(" = ".join(map(repr, group)) for group in groups[:LISTED]),
    )


def _classes(data: Data) -> Iterator[Finding]:
    """Names and sizes of the classes: names that look alike, class imbalance and tiny classes of
    the training images, and classes that a split lacks."""
    yield _names_alike(data)
    counts = data.train.labels.cpu().bincount(minlength=len(data.classes)).numpy()
    n, present = len(data.train), counts[counts > 0]
    ratio = present.max() / present.min()
    evidence = _balance(data, counts)
    remedy = "train.balance: weights or sampling; read balanced accuracy beside accuracy"
    imbalanced = ratio >= IMBALANCE[0]
    severity: Severity = "serious" if ratio >= IMBALANCE[1] else "minor" if imbalanced else "none"
    yield Finding(
        "class imbalance",
        "sign" if imbalanced else "no sign",
        severity,
        evidence,
        n,
        remedy if imbalanced else "",
    )
    tiny = {data.classes[k]: int(count) for k, count in enumerate(counts) if count < TINY}
    if tiny:
        items = tuple(f"{name}: {count}" for name, count in tiny.items())
        have = "has" if len(tiny) == 1 else "have"
        evidence = f"{len(tiny)} of {len(counts)} classes {have} fewer than {TINY} training images"
        yield Finding(
            "tiny classes",
            "sign",
            "serious" if min(tiny.values()) < 5 else "minor",
            evidence,
            n,
            "collect more, or merge them",
            items,
        )
    else:
        yield Finding(
            "tiny classes", "no sign", "none", f"every class has at least {TINY} training images", n
        )
    for name, split in data.splits.items():
        of_split = split.labels.cpu().bincount(minlength=len(data.classes)).numpy()
        lacking = tuple(data.classes[k] for k in np.flatnonzero((of_split == 0) & (counts > 0)))
        if name != "train" and lacking:
            have = "has" if len(lacking) == 1 else "have"
            evidence = (
                f"{len(lacking)} of {len(counts)} classes {have} no {name} image, so nothing is known of them"
            )
            yield Finding(
                f"classes without {name} images",
                "sign",
                "serious",
                evidence,
                len(split),
                f"add {name} images of them",
                lacking,
            )


def _balance(data: Data, counts: NDArray[np.int64]) -> str:
    """How many images the largest and the smallest class that is there have (`counts` by class)."""
    large = int(counts.argmax())
    small = int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    if counts[large] == counts[small]:
        return f"the {(counts > 0).sum()} classes have {counts[large]} training images each"
    times = f"{counts[large] / counts[small]:.1f} times"
    many = "about as many images as" if times == "1.0 times" else f"{times} the images of"
    return (
        f"the largest training class ({data.classes[large]}, {counts[large]}) has {many} the smallest "
        f"({data.classes[small]}, {counts[small]})"
    )


def _groups(data: Data) -> Finding:
    groups = {name: split.columns.get("group") for name, split in data.splits.items()}
    known = {name: set(column.tolist()) for name, column in groups.items() if column is not None}
    if len(known) < 2:
        return Finding(
            "group leakage",
            "not checked",
            "none",
            "no column or option `group` says which images belong together",
            0,
        )
    shared = sorted(set().union(*(a & b for a, b in itertools.combinations(known.values(), 2))), key=str)
    n = sum(len(split) for split in data.splits.values())
    if not shared:
        return Finding(
            "group leakage",
            "no sign",
            "none",
            f"{counted(len(set().union(*known.values())), 'group')}, each in one split",
            n,
        )
    items = tuple(
        f"{group}: in {' and '.join(name for name, values in known.items() if group in values)}"
        for group in shared[:LISTED]
    )
    evidence = f"{counted(len(shared), 'group has', 'groups have')} images in more than one split"
    return Finding(
        "group leakage",
        "sign",
        "serious",
        evidence,
        n,
        "give no split of your own, or divide by group",
        items,
    )


def _shortcuts(data: Data, colours: NDArray[np.float32]) -> Iterator[Finding]:
    """Whether the label can be predicted without the image's content.

    A decision tree predicts it from the file size, the image size or the mean colour alone, by
    cross-validation.
    """
    columns = data.train.columns
    kinds: dict[str, NDArray[Any] | None] = {
        "file size": columns["bytes"][:, None] if "bytes" in columns else None,
        "picture size": np.stack([columns["width"], columns["height"]], 1) if "width" in columns else None,
        "mean colour": colours,
    }
    for what, values in kinds.items():
        name = f"label from {what}"
        if values is None or not np.ptp(values, axis=0).any():
            reason = "all the same" if values is not None else "not known of these images"
            yield Finding(name, "not checked", "none", f"{what}: {reason}", 0)
        else:
            yield _shortcut(name, what, np.asarray(values, np.float64), data.train.labels.cpu().numpy())


def _shortcut(name: str, what: str, values: NDArray[np.float64], labels: NDArray[np.int64]) -> Finding:
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    rows = np.random.default_rng(0).permutation(len(labels))[:PROBED]
    values, labels = values[rows], labels[rows]
    tree = DecisionTreeClassifier(
        max_leaf_nodes=64, min_samples_leaf=max(2, len(rows) // 500), random_state=0
    )
    guesses = cross_val_predict(tree, values, labels, cv=KFold(min(5, len(labels))))
    accuracy = wilson(int((guesses == labels).sum()), len(labels))
    baseline = np.bincount(labels).max() / len(labels)
    reached = (accuracy.low - baseline) / (1 - baseline)
    minor, serious = SHORTCUT
    severity: Severity = "serious" if reached >= serious else "minor" if reached >= minor else "none"
    evidence = (
        f"{what} alone gives the label of {100 * accuracy.value:.1f} % of the training images "
        f"({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}, cross-validated; "
        f"always predicting the most frequent class gives {100 * baseline:.1f} %)"
    )
    remedy = (
        "a model may learn this instead of the image's content: "
        "take all classes from the same source, or make them equal in this"
    )
    if severity == "none":
        return Finding(name, "no sign", severity, evidence, len(labels), "")
    return Finding(name, "sign", severity, evidence, len(labels), remedy)
