"""Accuracy without the images that have a copy among the training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stresslens.core.format import percent_sign, points
from stresslens.core.text import counted
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import newcombe, wilson

WITHOUT, ON, GAIN = "accuracy_without_copies", "accuracy_on_copies", "gain_from_copies"
"""The names of the scores."""


def scores_without_copies(right: NDArray[np.bool_], copies: Sequence[int]) -> dict[str, Estimate]:
    """Accuracy without and on the images at the positions `copies`, and the accuracy of all images
    minus that without them; `right` (N,) says which images are classified correctly.

    There are no such scores without copies, or without other images. With a share s of copies the
    difference is s (accuracy on copies - accuracy without), whose interval is Newcombe's of the two
    accuracies, times s: which images are copies is taken as given.
    """
    copied = np.zeros(len(right), bool)
    copied[list(copies)] = True
    n, clean = int(copied.sum()), int((~copied).sum())
    if not n or not clean:
        return {}
    on, without = wilson(int(right[copied].sum()), n), wilson(int(right[~copied].sum()), clean)
    share = n / len(right)
    low, high = (share * bound for bound in newcombe(on, without))
    gain = Estimate(share * (on.value - without.value), low, high, len(right), "Newcombe")
    return {WITHOUT: without, ON: on, GAIN: gain}


def without_copies_in_words(scores: Mapping[str, Estimate], split: str) -> str:
    """What copies do to the accuracy of a split, as a sentence; empty without these scores."""
    if GAIN not in scores:
        return ""
    on, without, gain = scores[ON], scores[WITHOUT], scores[GAIN]
    have, them = ("has", "it") if on.n == 1 else ("have", "them")
    return (
        f"{counted(on.n, f'{split} image')} {have} a copy in an earlier split: accuracy without {them} "
        f"{percent_sign(without)} of {counted(without.n, 'image')}, on {them} alone {percent_sign(on)}; "
        f"with {them} it is {points(gain, 2)} points above that without {them} (n = {gain.n:,})."
    )
