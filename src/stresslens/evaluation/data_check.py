"""Is the data fit to learn from and to test on? Duplicates, leaks, imbalance and shortcuts, each as
a Finding."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.data import Data, Split, cache_root
from stresslens.core.errors import StresslensError
from stresslens.core.files import read_json, write_json
from stresslens.core.image_files import digest
from stresslens.core.progress import advance
from stresslens.core.types import Finding
from stresslens.metrics.intervals import wilson

VERSION = 1
Severity = Literal["none", "minor", "serious"]

LISTED = 50
"""Examples that a finding names."""
HAMMING = 8
"""Bits of 64 in which the perceptual hashes of near duplicates may differ."""
ALIKE = 0.93
"""Correlation of 16×16 thumbnails from which on two pictures with near hashes are near duplicates.
Of 500 such pairs in CIFAR-10, every one of the 70 looked at was the same photograph."""
LOOK_ALIKE, MOST_LOOK_ALIKES = 0.85, 0.005
"""Correlation of look-alikes, and the share of random pairs of one class that may be such without
being copies: of photographs 0.0004 (CIFAR-10), of handwriting 0.03 (MNIST) and 0.16 (digits), where
copies cannot be told from look-alikes."""
MOST_ALIKE = 0.1
"""The share of random pairs of one class that may be as alike as copies (a camera that does not
move: all of them are)."""
NEIGHBOURS = 200
"""Pictures with a quarter of their hash in common that each is held against."""
TINY = 20
"""Training images below which a class is tiny; a test class with fewer has a recall known to ±20
points at best."""
IMBALANCE = (3, 10)
"""Largest class over smallest: minor from the first on, serious from the second."""
SHORTCUT = (0.25, 0.5)
"""Share of the way from the majority baseline to 100 % that a shortcut reaches: minor from the
first on, serious from the last."""
PROBED = 20_000
"""Training images that a shortcut is looked for among."""


def data_findings(data: Data) -> list[Finding]:
    """What was noticed while reading a data set, and what `check` finds: from the cache if these
    very images, labels, file names, groups and sizes were checked before."""
    columns = {
        name: {fact: c.tolist() for fact, c in split.columns.items()} for name, split in data.splits.items()
    }
    facts = digest(json.dumps(columns, sort_keys=True, default=str).encode()).hex()
    file = cache_root() / "checks" / f"{data.fingerprint}-{facts}-{VERSION}.json"
    if file.exists():
        try:
            return [*data.findings, *(Finding.from_json(each) for each in read_json(file))]
        except (StresslensError, TypeError):
            file.unlink()
    found = check_data(data)
    write_json(file, [finding.as_json() for finding in found])
    return [*data.findings, *found]


def check_data(data: Data) -> list[Finding]:
    """Every finding on images and labels: duplicates, two labels, constant images, classes, groups
    and shortcuts."""
    names, splits = _names(data), list(data.splits)
    sizes = [len(split) for split in data.splits.values()]
    part = np.repeat(np.arange(len(splits)), sizes)  # (N,) which split each image is in
    labels = torch.cat([split.labels.cpu() for split in data.splits.values()]).numpy()
    digests = np.concatenate([_digests(split) for split in data.splits.values()])
    features = [_looked_at(split, f"checking {data.name}, {name}") for name, split in data.splits.items()]
    hashes, thumbnails, colours, spans = (np.concatenate(each) for each in zip(*features))
    exact = _exact_pairs(digests, part)
    told = _can_be_told(thumbnails, labels)
    near = _near_pairs(hashes, thumbnails, exact) if told else np.empty((0, 2), np.int64)
    labelled = [data.classes[label] for label in labels]
    return [
        *_duplicates("exact duplicates", exact, part, splits, names, "identical pixels"),
        *(
            _duplicates("near duplicates", near, part, splits, names, "nearly identical pictures")
            if told
            else [_untold(len(labels))]
        ),
        _two_labels(exact, near, labels, labelled, names),
        _constant(spans, names),
        *_classes(data),
        _groups(data),
        *_shortcuts(data, colours[part == 0]),
    ]


def _names(data: Data) -> list[str]:
    """What each image is called: its file, or its split and place."""
    return [
        str(split.columns["file"][k]) if "file" in split.columns else f"{name}[{k}]"
        for name, split in data.splits.items()
        for k in range(len(split))
    ]


def _digests(split: Split) -> NDArray[np.void]:
    """(N,) 16 bytes each, equal where the pixels are."""
    if not isinstance(split.images, Tensor):
        return np.frombuffer(split.images.content(), "V16")
    images = np.ascontiguousarray(split.images.cpu().numpy())
    return np.frombuffer(b"".join(digest(image.tobytes()) for image in images), "V16")


def _looked_at(split: Split, what: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of each image: perceptual hash (uint64), thumbnail (256 values, mean 0, length 1), mean
    colour (channels), span of values."""
    hashes, thumbnails, colours, spans = [], [], [], []
    done = 0
    for piece in split.pieces(1024):
        x = split.floats(piece.cpu())
        grey = x.mean(1, keepdim=True)
        hashes.append(_perceptual_hash(grey))
        small = (
            F.adaptive_avg_pool2d(grey, 16).flatten(1)
            if min(grey.shape[2:]) > 16
            else F.interpolate(grey, (16, 16)).flatten(1)
        )
        thumbnails.append(F.normalize(small - small.mean(1, keepdim=True)).numpy())
        colours.append(x.mean((2, 3)).numpy())
        spans.append((x.amax((2, 3)) - x.amin((2, 3))).amax(1).numpy())
        done += len(x)
        advance(what, done, len(split))
    return tuple(np.concatenate(each) for each in (hashes, thumbnails, colours, spans))  # type: ignore[return-value]


def _perceptual_hash(grey: Tensor) -> NDArray[np.uint64]:
    """(N,) 64 bits: which of the lowest 8×8 frequencies of the cosine transform lie above their
    median (Zauner 2010, pHash)."""
    square = F.interpolate(grey, (32, 32), mode="bilinear", antialias=True)[:, 0]
    k, x = torch.arange(8)[:, None], torch.arange(32)[None]
    cosines = torch.cos(torch.pi * (x + 0.5) * k / 32)  # (8, 32)
    low = (cosines @ square @ cosines.t()).flatten(1)
    bits = (low > low[:, 1:].median(1, keepdim=True).values).numpy()
    packed = np.packbits(bits, axis=1)
    return np.ascontiguousarray(packed).view(np.uint64)[:, 0]


Pairs = NDArray[np.int64]
"""(P, 2) positions over all splits together, the smaller first."""


def _exact_pairs(digests: NDArray[np.void], part: NDArray[np.int64]) -> Pairs:
    """Each image with the first that has the same pixels, and with the first such of its own split."""
    _, alike = np.unique(digests, return_inverse=True)
    _, alike_here = np.unique(np.stack([alike, part]), axis=1, return_inverse=True)
    everyone = np.arange(len(digests))
    pairs = []
    for group in (alike, alike_here):
        earliest = np.full(group.max() + 1, len(digests))
        np.minimum.at(earliest, group, everyone)
        pairs.append(np.stack([earliest[group], everyone], 1)[earliest[group] != everyone])
    return np.unique(np.concatenate(pairs), axis=0)


def _near_pairs(hashes: NDArray[np.uint64], thumbnails: NDArray[np.float32], exact: Pairs) -> Pairs:
    """Pairs whose hashes differ in few bits and share one of four quarters, and whose thumbnails
    correlate; not the exact ones."""
    found: list[Pairs] = []
    varied = np.flatnonzero(np.linalg.norm(thumbnails, axis=1) > 0.5)  # a constant image is like none
    varied = np.setdiff1d(varied, exact[:, 1])
    for quarter in range(4):
        key = (hashes[varied] >> np.uint64(16 * quarter)) & np.uint64(0xFFFF)
        order = varied[np.argsort(key, kind="stable")]
        sorted_keys = np.sort(key, kind="stable")
        for apart in range(1, min(len(order), NEIGHBOURS)):
            together = np.flatnonzero(sorted_keys[apart:] == sorted_keys[:-apart])
            if not len(together):
                break
            a, b = order[together], order[together + apart]
            close = np.bitwise_count(hashes[a] ^ hashes[b]) <= HAMMING
            a, b = a[close], b[close]
            alike = np.einsum("nd,nd->n", thumbnails[a], thumbnails[b]) >= ALIKE
            found.append(np.sort(np.stack([a[alike], b[alike]], 1), 1))
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)


def _can_be_told(thumbnails: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    """Whether pictures of one class are so different that two alike must be copies, by 200,000
    random pairs."""
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    look_alikes = copies = pairs = 0
    for shift in range(1, 1 + max(1, 200_000 // len(labels))):
        a, b = order[shift:], order[:-shift]
        same = labels[a] == labels[b]
        alike = np.einsum("nd,nd->n", thumbnails[a[same]], thumbnails[b[same]])
        look_alikes += int(((alike >= LOOK_ALIKE) & (alike < ALIKE)).sum())
        copies += int((alike >= ALIKE).sum())
        pairs += int(same.sum())
    return look_alikes <= MOST_LOOK_ALIKES * pairs and copies <= MOST_ALIKE * pairs


def _untold(n: int) -> Finding:
    why = "pictures of one class are so alike here that copies cannot be told from look-alikes"
    return Finding("near duplicates", "not checked", "none", why, n)


def _duplicates(
    audit: str, pairs: Pairs, part: NDArray[np.int64], splits: Sequence[str], names: list[str], what: str
) -> Iterator[Finding]:
    """Within a split (copies weigh double) and across splits (a test image that was trained on is
    no test)."""
    n = len(part)
    across = part[pairs[:, 0]] != part[pairs[:, 1]]
    for place, chosen in (("within a split", pairs[~across]), ("across splits", pairs[across])):
        name = f"{audit} {place}"
        if not len(chosen):
            yield Finding(name, "no sign", "none", f"none among {n} images", n)
            continue
        if place == "across splits":
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
            evidence = f"{counts} images stand in another split as well ({what})"
            remedy = "keep all copies on one side: name what they share as `group`, or remove them; scores on copies are too good"
        else:
            images = len(np.unique(chosen))
            severity = "serious" if images > n / 10 else "minor"
            evidence = f"{images} of {n} images have a copy in their own split ({what})"
            remedy = "remove the copies: they weigh double, and counted intervals are too narrow"
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
            f"no duplicates with different labels among {n} images",
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


def _classes(data: Data) -> Iterator[Finding]:
    """Imbalance and tiny classes among the training images; classes that a split lacks or has too few of."""
    counts = data.train.labels.cpu().bincount(minlength=len(data.classes)).numpy()
    n, present = len(data.train), counts[counts > 0]
    ratio = present.max() / present.min()
    largest, smallest = (
        data.classes[int(counts.argmax())],
        data.classes[int(np.where(counts > 0, counts, n + 1).argmin())],
    )
    evidence = (
        f"the largest training class ({largest}, {present.max()}) has {ratio:.1f} times the images of the smallest "
        f"({smallest}, {present.min()})"
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
    shared = sorted(set().union(*(a & b for (_, a), (_, b) in _combinations(known))), key=str)
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


def _combinations(known: dict[str, set[Any]]) -> Iterator[tuple[tuple[str, set[Any]], tuple[str, set[Any]]]]:
    items = list(known.items())
    return ((a, b) for k, a in enumerate(items) for b in items[k + 1 :])


def _shortcuts(data: Data, colours: NDArray[np.float32]) -> Iterator[Finding]:
    """Whether something other than the picture gives the label away: a decision tree on it alone,
    by cross-validation."""
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
    right = wilson(int((guesses == labels).sum()), len(labels))
    baseline = np.bincount(labels).max() / len(labels)
    reached = (right.low - baseline) / (1 - baseline)
    minor, serious = SHORTCUT
    severity: Severity = "serious" if reached >= serious else "minor" if reached >= minor else "none"
    evidence = (
        f"{what} alone gives the label of {100 * right.value:.1f} % of the training images ({100 * right.low:.1f} to "
        f"{100 * right.high:.1f}, cross-validated; always naming the commonest class {100 * baseline:.1f} %)"
    )
    remedy = (
        "a model may learn this instead of the picture: take every class from the same source, or even it out"
    )
    found = severity != "none"
    return Finding(
        name, "sign" if found else "no sign", severity, evidence, len(labels), remedy if found else ""
    )
