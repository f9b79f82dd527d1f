"""Data-quality check: duplicates, leakage between splits, label noise, class imbalance, shortcuts.

Each problem is reported as a Finding.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.class_names import alike
from stresslens.core.data import Data, Split
from stresslens.core.errors import StresslensError
from stresslens.core.files import read_json, write_json
from stresslens.core.image_files import digest
from stresslens.core.progress import advance
from stresslens.core.types import Finding
from stresslens.evaluation.near_duplicates import (
    BY_HASHES,
    BY_PIXELS,
    Pairs,
    copies_are_distinguishable,
    correlation_thumbnails,
    exact_pairs,
    near_pairs,
    perceptual_hash,
)
from stresslens.metrics.intervals import wilson

VERSION = 2
Severity = Literal["none", "minor", "serious"]

LISTED = 50
"""Most examples that a finding names."""
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
    names, splits = _names(data), list(data.splits)
    sizes = [len(split) for split in data.splits.values()]
    part = np.repeat(np.arange(len(splits)), sizes)  # (N,) which split each image is in
    labels = torch.cat([split.labels.cpu() for split in data.splits.values()]).numpy()
    digests = np.concatenate([_digests(split) for split in data.splits.values()])
    features = [_features(split, f"checking {data.name}, {name}") for name, split in data.splits.items()]
    hashes, thumbnails, colours, spans = (np.concatenate(values) for values in zip(*features))
    exact = exact_pairs(digests, part)
    distinguishable = copies_are_distinguishable(thumbnails, labels)
    near = near_pairs(hashes, thumbnails, exact) if distinguishable else np.empty((0, 2), np.int64)
    labelled = [data.classes[label] for label in labels]
    return [
        *_duplicates("exact duplicates", exact, part, splits, names, "identical pixels", BY_PIXELS),
        *(
            _duplicates("near duplicates", near, part, splits, names, "nearly identical images", BY_HASHES)
            if distinguishable
            else [_not_distinguishable(len(labels))]
        ),
        _two_labels(exact, near, labels, labelled, names),
        _constant(spans, names),
        *_classes(data),
        _groups(data),
        *_shortcuts(data, colours[part == 0]),
    ]


def _names(data: Data) -> list[str]:
    """A name for each image: its file, or its split and its position there."""
    return [
        str(split.columns["file"][k]) if "file" in split.columns else f"{name}[{k}]"
        for name, split in data.splits.items()
        for k in range(len(split))
    ]


def _digests(split: Split) -> NDArray[np.void]:
    """(N,) digests of 16 bytes, equal if the pixels are equal."""
    if not isinstance(split.images, Tensor):
        return np.frombuffer(split.images.content(), "V16")
    images = np.ascontiguousarray(split.images.cpu().numpy())
    return np.frombuffer(b"".join(digest(image.tobytes()) for image in images), "V16")


def _features(split: Split, what: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Perceptual hash (uint64), thumbnail (256), mean colour (channels) and range of each image."""
    hashes, thumbnails, colours, spans = [], [], [], []
    done = 0
    for piece in split.pieces(1024):
        x = split.floats(piece.cpu())
        grey = x.mean(1, keepdim=True)
        hashes.append(perceptual_hash(grey))
        thumbnails.append(correlation_thumbnails(grey))
        colours.append(x.mean((2, 3)).numpy())
        spans.append((x.amax((2, 3)) - x.amin((2, 3))).amax(1).numpy())
        done += len(x)
        advance(what, done, len(split))
    return np.concatenate(hashes), np.concatenate(thumbnails), np.concatenate(colours), np.concatenate(spans)


def _not_distinguishable(n: int) -> Finding:
    why = "images of one class are so similar here that copies cannot be distinguished from look-alikes"
    return Finding("near duplicates", "not checked", "none", why, n)


def _duplicates(
    audit: str,
    pairs: Pairs,
    part: NDArray[np.int64],
    splits: Sequence[str],
    names: list[str],
    what: str,
    looked: str,
) -> Iterator[Finding]:
    """Duplicates within a split, which count twice, and across splits, which make scores too
    good. `looked` says how they were searched, and what that misses."""
    n = len(part)
    across = part[pairs[:, 0]] != part[pairs[:, 1]]
    for scope, chosen in (("within a split", pairs[~across]), ("across splits", pairs[across])):
        name = f"{audit} {scope}"
        if not len(chosen):
            yield Finding(name, "no sign", "none", f"none found among {n} images; {looked}", n)
            continue
        if scope == "across splits":
            held_out = np.unique(
                np.where(part[chosen[:, 0]] > part[chosen[:, 1]], chosen[:, 0], chosen[:, 1])
            )
            counts = ", ".join(
                f"{np.sum(part[held_out] == k)} of {np.sum(part == k)} {split}"
                for k, split in enumerate(splits)
                if k and np.any(part[held_out] == k)
            )
            worst = max(np.sum(part[held_out] == k) / np.sum(part == k) for k in range(1, len(splits)))
            severity: Severity = "serious" if worst >= 0.01 else "minor"
            evidence = f"{counts} images are in another split as well ({what})"
            remedy = (
                "keep all copies in one split: give what they share as `group`, or remove them; "
                "scores on copies are too good"
            )
        else:
            images = len(np.unique(chosen))
            severity = "serious" if images > n / 10 else "minor"
            evidence = f"{images} of {n} images have a copy in their own split ({what})"
            remedy = "remove the copies: they count twice, and intervals are too narrow"
        items = tuple(f"{names[b]} = {names[a]}" for a, b in chosen[:LISTED])
        yield Finding(name, "sign", severity, evidence, n, remedy, items)


def _two_labels(
    exact: Pairs, near: Pairs, labels: NDArray[np.int64], labelled: list[str], names: list[str]
) -> Finding:
    pairs = np.concatenate([exact, near])
    differ = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    n = len(labels)
    if not len(differ):
        return Finding(
            "one image, two labels",
            "no sign",
            "none",
            f"no duplicates with different labels found among {n} images; "
            "a wrong label of an image without a copy is not looked for",
            n,
        )
    items = tuple(f"{names[a]} ({labelled[a]}) = {names[b]} ({labelled[b]})" for a, b in differ[:LISTED])
    severity: Severity = "serious" if len(differ) > n / 1000 else "minor"
    return Finding(
        "one image, two labels",
        "sign",
        severity,
        f"{len(differ)} pairs of duplicates have different labels",
        n,
        "correct the labels",
        items,
    )


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
    largest, smallest = (
        data.classes[int(counts.argmax())],
        data.classes[int(np.where(counts > 0, counts, n + 1).argmin())],
    )
    evidence = (
        f"the largest training class ({largest}, {present.max()}) has {ratio:.1f} times the images "
        f"of the smallest ({smallest}, {present.min()})"
    )
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
        evidence = f"{len(tiny)} of {len(counts)} classes have fewer than {TINY} training images"
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
            evidence = (
                f"{len(lacking)} of {len(counts)} classes have no {name} image, so nothing is known of them"
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
            f"{len(set().union(*known.values()))} groups, each in one split",
            n,
        )
    items = tuple(
        f"{group}: in {' and '.join(name for name, values in known.items() if group in values)}"
        for group in shared[:LISTED]
    )
    evidence = f"{len(shared)} groups have images in more than one split"
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
