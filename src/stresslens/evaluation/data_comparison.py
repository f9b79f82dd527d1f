"""What a comparison of two sets of pictures has found, in words, as a table and as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stresslens.core.cards import card, sentences
from stresslens.core.format import p_value, signed
from stresslens.core.tables import ResultTable, Tabular
from stresslens.core.text import brief, counted, enumeration
from stresslens.core.types import Estimate

ALPHA = 0.05
"""Rate of false alarms among sets that do not differ, over all tests of a comparison together. One half is
the classifier's; the properties share the other, by Holm's correction."""
NAMED = 3

Features = Literal["pictures", "network"]


@dataclass(frozen=True)
class ComparedSet:
    """A set of pictures: how many `images` it has, how many of them were `sampled`, and how many were
    `compared`, without copies and unreadable files."""

    name: str
    images: int
    sampled: int
    compared: int


@dataclass(frozen=True)
class PropertyDifference:
    """The means of a property in A and in B, their difference (B minus A), that difference in standard
    deviations, and p before and after the correction over all tests of the comparison (`ALPHA`).

    Of the class shares, p is of all classes together, and the figures are those of the share that
    moved most, which `name` says; there `standardised` is Cohen's h.
    """

    name: str
    a: float
    b: float
    difference: Estimate
    standardised: float
    p: float
    p_corrected: float

    @property
    def real(self) -> bool:
        return self.p_corrected <= ALPHA

    @property
    def sentence(self) -> str:
        if self.name.startswith("class shares"):
            return (
                f"{self.name}, {100 * self.a:.1f} % in A and {100 * self.b:.1f} % in B "
                f"({signed(self.difference.low)} to {signed(self.difference.high)} points)"
            )
        return (
            f"{self.name} {self.a:.4g} in A and {self.b:.4g} in B (difference {self.difference.value:+.3g}, "
            f"{self.difference.low:+.3g} to {self.difference.high:+.3g})"
        )

    def as_json(self) -> dict[str, Any]:
        finite = self.standardised if math.isfinite(self.standardised) else None
        return {**asdict(self), "difference": self.difference.as_json(), "standardised": finite}


@dataclass(frozen=True)
class UnlikeImage:
    """An image of B, its distance to the fifth nearest image of A, and the share `p` of A's own images
    that are at least as far from the others of A."""

    image: str
    distance: float
    p: float


@dataclass(frozen=True, repr=False)
class DataComparison(Tabular):
    """How far the pictures of B differ from those of A.

    `auroc` is that of a classifier that tells them apart, held out; `p` is its permutation p value,
    `p_corrected` after the correction over it and the `properties` (`ALPHA`). From an AUROC of
    `detectable` on it would have been found in four of five cases. `shared` are the pictures of both,
    (A's, B's).
    """

    a: ComparedSet
    b: ComparedSet
    features: Features
    auroc: Estimate
    p: float
    p_corrected: float
    detectable: float
    properties: tuple[PropertyDifference, ...]
    class_shares: tuple[tuple[str, float, float], ...]
    """Of each class its share in A and in B; empty unless both have classes of the same names."""
    shared: tuple[tuple[str, str], ...]
    least_like: tuple[UnlikeImage, ...]
    """The images of B that are farthest from A."""
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether any of the tests finds a difference."""
        return self.p_corrected <= ALPHA or any(each.real for each in self.properties)

    def __repr__(self) -> str:
        return f"DataComparison({brief(self.sentence, 300)})"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        auroc, p = self.auroc, p_value(self.p_corrected)
        n = f"n = {self.a.compared:,} and {self.b.compared:,}"
        told = f"AUROC {auroc.value:.3f}, {auroc.low:.3f} to {auroc.high:.3f}, {n}, p {p}"
        if self.p_corrected <= ALPHA:
            return f"B differs from A: a classifier tells them apart ({told})"
        moved = [each.sentence for each in self.properties if each.real]
        if moved:
            return (
                f"B differs from A in {enumeration(moved, NAMED)}; a classifier of the images does not tell "
                f"them apart ({told})"
            )
        return f"no difference found: {told}; {self.missed}"

    @property
    def missed(self) -> str:
        """Which difference would have been missed, in words."""
        if self.detectable >= 1:
            return "with so few images hardly any difference would have been found"
        return (
            f"a difference below an AUROC of {self.detectable:.3f} would have been missed in one of five "
            "cases or more"
        )

    @property
    def sentences(self) -> list[str]:
        """What the verdict stands on: samples, copies, and the properties that differ."""
        told = [_sampled("A", self.a), _sampled("B", self.b), *self.notes]
        if self.p_corrected <= ALPHA:
            told += [each.sentence for each in self.properties if each.real][:NAMED]
        if self.auroc.high < 0.5:
            told.append("A and B are more alike than two random samples, as parts drawn class by class are")
        if self.shared:
            pairs = [f"{b} = {a}" if a != b else a for a, b in self.shared]
            told.append(
                f"{counted(len(pairs), 'pair of copies', 'pairs of copies')} in A and B, left out of both: "
                f"{enumeration(pairs, NAMED)}"
            )
        return told

    def _repr_html_(self) -> str:
        unlike = [f"{each.image} (p {p_value(each.p)})" for each in self.least_like]
        lead = f"{brief(self.sentence, 600)}."
        return card(lead, sentences(self.sentences), self._table().html(), "Least like A:", sentences(unlike))

    def _table(self) -> ResultTable:
        columns = ("property", "A", "B", "difference", "standardised", "p", "p, corrected")
        cells = [
            (e.name, e.a, e.b, e.difference, e.standardised, e.p, e.p_corrected) for e in self.properties
        ]
        return ResultTable(columns, cells)

    def as_json(self) -> dict[str, Any]:
        """What `stresslens data compare --json` prints."""
        return {
            "sentence": self.sentence,
            "differs": self.differs,
            "a": asdict(self.a),
            "b": asdict(self.b),
            "features": self.features,
            "auroc": self.auroc.as_json(),
            "p": self.p,
            "p_corrected": self.p_corrected,
            "detectable": self.detectable,
            "properties": [each.as_json() for each in self.properties],
            "class_shares": [{"class": name, "a": a, "b": b} for name, a, b in self.class_shares],
            "shared": [{"a": a, "b": b} for a, b in self.shared],
            "least_like": [asdict(each) for each in self.least_like],
            "notes": list(self.notes),
        }


def _sampled(which: str, compared: ComparedSet) -> str:
    told = f"{which}: {compared.name}, {compared.compared:,} of {counted(compared.images, 'image')} compared"
    if compared.sampled < compared.images:
        told += f" ({compared.sampled:,} drawn at random)"
    return told


def copies_note(which: str, repeats: int) -> str:
    """A note on images that repeat another of their own set; empty without any."""
    if not repeats:
        return ""
    told = "repeats another one and is left out" if repeats == 1 else "repeat others and are left out"
    return f"{counted(repeats, 'image')} of {which} {told}"


def said(notes: Sequence[str]) -> tuple[str, ...]:
    """The notes that say anything."""
    return tuple(filter(None, notes))
