from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stresslens.core.data import Data
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Count, Finding, Share
from stresslens.metrics.intervals import wilson

AUDIT = "colour order"
FOLDS = 5

Floats = NDArray[np.float32]


def colour_order(
    data: Data, pictures: PictureFacts, *, exchanged: Share = 0.6, told: Share = 0.6, images: Count = 20
) -> Finding:
    """Groups of images whose red and blue seem to be exchanged (BGR instead of RGB, as OpenCV reads them).

    A linear classifier learns from the training images, and from the same with red and blue exchanged,
    which is which. It then judges each split, class and kind of file that it has not learned from. A sign
    if more than the share `exchanged` of a group (of at least so many `images`) looks exchanged. Not
    checked if it is right for less than the share `told` of the training images (cross-validated). A single
    image cannot be told, nor data that are exchanged as a whole.
    """
    tints = pictures.measures.tints
    if not tints.shape[1] or not tints.any():
        return not_checked(AUDIT, "the images have no colours")
    train = np.flatnonzero(pictures.part == 0)
    if len(train) < 2 * images:
        return not_checked(AUDIT, f"fewer than {2 * images} training images")
    tints = tints / np.sqrt(np.square(tints[train], dtype=np.float64).mean(0) + 1e-12)
    fold = np.random.default_rng(1).permutation(len(train)) % FOLDS
    right = np.empty(len(train), bool)
    for k in range(FOLDS):
        right[fold == k] = ~_exchanged(tints[train[fold != k]], tints[train[fold == k]])
    reliable = wilson(int(right.sum()), len(right))
    if reliable.low < told:
        why = (
            "exchanged colours cannot be recognised here: a classifier is right for "
            f"{100 * reliable.value:.0f} % of the training images, where guessing is right for 50 %"
        )
        return not_checked(AUDIT, why)
    wrong, found, groups = [], 0, 0
    for name, rows, learned in _groups(data, pictures, train):
        if len(rows) < images or len(learned) < images:
            continue
        looks = _exchanged(tints[learned], tints[rows])
        groups += 1
        found += bool(1 - looks.mean() > exchanged)
        if looks.mean() > exchanged and wilson(int(looks.sum()), len(looks)).low > 0.5:
            wrong.append((name, float(looks.mean()), rows))
    n = len(tints)
    looked = (
        f"exchanged on purpose, {found} of the {groups} groups would be found; one image alone cannot be "
        f"told (a classifier is right for {100 * reliable.value:.0f} % of them)"
    )
    if not wrong:
        return no_sign(
            AUDIT, f"none of {groups} splits, classes and kinds of file looks exchanged; {looked}", n
        )
    named = ", ".join(f"{name} ({100 * share:.0f} % of its images)" for name, share, _ in wrong[:5])
    return sign(
        AUDIT,
        f"red and blue look exchanged in {named}; {looked}",
        n,
        "look at them; where they are exchanged, write them again as RGB (OpenCV: cv2.cvtColor)",
        items=[name for name, _, _ in wrong],
        places=np.concatenate([rows[:8] for _, _, rows in wrong[:6]]).tolist(),
    )


def _groups(
    data: Data, pictures: PictureFacts, train: NDArray[np.int64]
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    """Name and images of each group, and the training images to learn from. Of the training images, a
    group is judged by others; classes are judged in folds of classes."""
    for part, name in enumerate(data.splits):
        if part:
            yield f"the {name} images", np.flatnonzero(pictures.part == part), train
    labels = pictures.labels[train]
    present = np.unique(labels)
    folds = np.array_split(present, min(10, len(present)))
    for fold in folds:
        others = train[~np.isin(labels, fold)]
        for label in fold:
            yield f"class {data.classes[label]}", train[labels == label], others
    formats = data.train.columns.get("format")
    if formats is not None:
        own = formats[train]
        kinds = np.unique(own)
        for kind in kinds if len(kinds) > 1 else ():
            yield f"{kind} files", train[own == kind], train[own != kind]


def _exchanged(learned: Floats, judged: Floats) -> NDArray[np.bool_]:
    """(N,) whether images look exchanged to a classifier of the tints (n, F) of others.

    With every image and its exchanged copy, whose tints have the other sign, the classes ±1 are fitted by
    ridge regression; for two classes this is Fisher's linear discriminant.
    """
    learned = learned.astype(np.float64)
    ridge = 1e-3 * len(learned) * np.eye(learned.shape[1])
    weights = np.linalg.solve(learned.T @ learned + ridge, learned.sum(0))
    found: NDArray[np.bool_] = judged @ weights < 0
    return found
