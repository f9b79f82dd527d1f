"""Slices of low accuracy that were found by the features, as `run.find_slices` returns them."""

from __future__ import annotations

from dataclasses import dataclass

from stresslens.core.answers import answer_in_words
from stresslens.core.cards import card, sentences
from stresslens.core.tables import Percent, PercentagePoints, ResultTable, RowTable
from stresslens.evaluation.slice_record import FEATURES, FoundSlice, FoundSlices


@dataclass(frozen=True, repr=False)
class SlicesOfSplit(RowTable):
    """The slices of a split, the lowest p first, and how they were searched (`search`)."""

    search: FoundSlices
    classes: tuple[str, ...]
    split: str

    def __len__(self) -> int:
        return len(self.search.slices)

    def __repr__(self) -> str:
        return f"SlicesOfSplit({self.split}: {self.sentence})"

    def _repr_html_(self) -> str:
        told = list(filter(None, [self.search.missed]))
        table = self._table().html() if self.slices else ""
        return card(f"{self.split}: {self.sentence}", table, sentences(told))

    @property
    def slices(self) -> list[FoundSlice]:
        """Each slice with its accuracy, that of the rest, its p, its classes and typical images."""
        return list(self.search.slices)

    @property
    def sentence(self) -> str:
        """What was found, and how it was looked for."""
        return self.search.sentence

    def _table(self) -> ResultTable:
        columns = ("images", "accuracy", "rest", "gap", "p, Holm", "alike by", "classes", "errors")
        return ResultTable(columns, [self._cells(each) for each in self.slices])

    def _cells(self, found: FoundSlice) -> tuple[int | float | str | Percent, ...]:
        names = list(self.classes)
        classes = ", ".join(f"{names[k]} ×{n}" for k, n in found.classes)
        errors = ", ".join(f"{names[t]} as {answer_in_words(a, names)} ×{n}" for t, a, n in found.mistakes)
        figures = Percent(found.accuracy), Percent(found.rest), PercentagePoints(found.gap)
        alike = FEATURES.get(found.features, found.features)
        return (found.accuracy.n, *figures, found.p_holm, alike, classes, errors)
