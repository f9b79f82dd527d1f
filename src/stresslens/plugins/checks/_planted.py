"""Faults that are planted in images of the data, to measure how many of them a check finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.findings import LISTED, no_sign, not_checked, sign
from stresslens.core.picture_facts import Measures, PictureFacts
from stresslens.core.types import Finding

OFTEN = 0.05
"""A fault of more than this share of the images is serious."""

Rule = Callable[[Measures], NDArray[np.bool_]]


def faulty_images(
    audit: str,
    pictures: PictureFacts,
    rule: Rule,
    what: str,
    remedy: str,
    planted: Mapping[str, Callable[[Tensor], Tensor]],
) -> Finding:
    """The finding on images for which `rule` is true.

    `what` says in words what is wrong with them ("are dark: …"). `planted` are changes of images
    (N, C, H, W) that bring the fault about, by what they do ("darkened to a quarter").
    """
    n = len(pictures.labels)
    found = np.flatnonzero(rule(pictures.measures))
    counts = planted_found(pictures, rule, planted)
    looked = in_words(counts, len(pictures.examples))
    if not len(found) and 2 * max(counts.values()) < len(pictures.examples):
        return not_checked(audit, f"images like these cannot be judged: {looked}")
    if not len(found):
        return no_sign(audit, f"none among {n} images; {looked}", n)
    shown = np.random.default_rng(0).permutation(found)[:LISTED]
    return sign(
        audit,
        f"{len(found)} of {n} images {what}; {looked}",
        n,
        remedy,
        serious=len(found) > OFTEN * n,
        items=[pictures.names[k] for k in shown],
        places=shown.tolist(),
    )


def planted_found(
    pictures: PictureFacts, rule: Rule, planted: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, int]:
    """How many of the examples are found once the fault was planted in them, by kind of change."""
    return {
        how: int(rule(Measures.of(change(pictures.examples).clamp(0, 1))).sum())
        for how, change in planted.items()
    }


def in_words(found: Mapping[str, int], n: int) -> str:
    """Numbers of planted faults that are found, of n images each."""
    each = " and ".join(f"{count} ({how})" for how, count in found.items())
    return f"planted in {n} of these images, the fault is found in {each}"
