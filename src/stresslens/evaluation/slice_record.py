"""Slices that were found by the features, as the record of a run holds them."""

from __future__ import annotations

import math

from stresslens.core.json_file import Figure, OrderedJsonFile
from stresslens.core.text import counted

FEATURES = {"network": "the network's features", "pictures": "small pictures"}
"""By what the images of a slice are alike, in words."""


class SliceMember(OrderedJsonFile):
    """A typical image of a slice, by its position in the split, with its true and its predicted class."""

    index: int
    image: str
    truth: int
    predicted: int


class FoundSlice(OrderedJsonFile):
    """A cluster of images of lower accuracy: on the images that were kept for the test, its accuracy, that
    of the `rest`, and the `gap` between them; p before and after Holm's correction over the clusters that
    were tested.

    `features` says by what the images are alike. `classes` are the most frequent true classes with their
    images, `mistakes` the most frequent errors (truth, predicted, images), and `members` the images that
    are nearest to the cluster's centre.
    """

    features: str
    accuracy: Figure
    rest: Figure
    gap: Figure
    p: float
    p_holm: float
    classes: list[tuple[int, int]] = []
    mistakes: list[tuple[int, int, int]] = []
    members: list[SliceMember] = []


class FoundSlices(OrderedJsonFile):
    """What the search for slices of a split found: the `slices`, the lowest p first.

    On `looked` images clusters were found; `candidates` of these `clusters` were tested on `tested` other
    images. A slice of `size` of these would have been found in four of five cases, if one cluster held it,
    from a `gap` to the rest on; None where no gap would.
    """

    looked: int
    tested: int
    clusters: int
    candidates: int
    size: int
    gap: float | None
    slices: list[FoundSlice] = []
    why_not: str = ""
    """Why no slices were searched; empty if they were."""

    @property
    def sentence(self) -> str:
        """What was found, and how it was looked for."""
        if self.why_not:
            return f"no slices were searched: {self.why_not}"
        found = counted(len(self.slices), "slice") if self.slices else "no slice"
        return (
            f"{found} of lower accuracy found by features: {counted(self.clusters, 'cluster')} of "
            f"{self.looked:,} images, {self.candidates} of them tested on {self.tested:,} others"
        )

    @property
    def missed(self) -> str:
        """Which slice would have been found, in words; empty where none were searched."""
        if self.why_not:
            return ""
        share = f"a slice of {self.size} of the {self.tested:,} tested images, if one cluster holds it,"
        if self.gap is None or not math.isfinite(self.gap):
            return f"{share} may be missed whatever its accuracy"
        points = f"{100 * self.gap:.0f} points lower than that of the rest"
        return f"{share} is found in four of five cases if its accuracy is {points}"
