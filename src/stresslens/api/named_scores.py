"""Scores by name, as `sl.evaluate` and `run.scores` return them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from stresslens.core.cards import card
from stresslens.core.errors import UnknownName
from stresslens.core.format import footnote
from stresslens.core.score_units import is_proportion
from stresslens.core.spelling import unknown_key
from stresslens.core.tables import Cell, Percent, ResultTable, Tabular, cell_text
from stresslens.core.text import counted
from stresslens.core.types import Estimate
from stresslens.report.summary import in_order, title

SHOWN = 3
"""Scores in the line that stands for all of them."""
T = TypeVar("T")


class ByName(dict[str, T]):
    """A dictionary that answers a name that it lacks with the closest ones. Raises UnknownName."""

    what = "name"

    def __missing__(self, name: object) -> T:
        raise UnknownName(unknown_key(name, self, f"there is no {self.what} {name!r}"))


class Scores(ByName[Estimate], Tabular):
    """A dictionary of scores with their intervals, which shows itself as a table: accuracy first."""

    what = "score"

    def __repr__(self) -> str:
        first = [f"{name} {cell_text(_cell(name, self[name]))}" for name in self._names[:SHOWN]]
        more = [f"and {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return f"Scores({', '.join([*first, *more])})"

    def _repr_html_(self) -> str:
        notes = footnote(self.values())
        cells = [(title(name), _cell(name, self[name])) for name in self._names]
        return card(
            self._lead,
            ResultTable(("score", "value"), cells).html(len(self)),
            f"Intervals: {notes}." if notes else "",
        )

    @property
    def _names(self) -> list[str]:
        return in_order(set(self))

    @property
    def _lead(self) -> str:
        accuracy = self.get("accuracy")
        if accuracy is None:
            return counted(len(self), "score")
        return f"Accuracy {cell_text(Percent(accuracy))} of {counted(accuracy.n, 'image')}"

    def _table(self) -> ResultTable:
        return ResultTable(("score", "value"), [(name, _cell(name, self[name])) for name in self._names])


class ScoresOfVariants(ByName[Scores], Tabular):
    """The scores of each variant, by the name of its folder."""

    what = "variant"

    def _table(self) -> ResultTable:
        return scores_table(self, "variant")


def scores_table(scores: Mapping[str, Mapping[str, Estimate]], first: str) -> ResultTable:
    """Scores by `first` (a split, a variant) and by name, a row for each."""
    cells = []
    for key, named in scores.items():
        cells += [(key, name, _cell(name, named[name])) for name in in_order(set(named))]
    return ResultTable((first, "score", "value"), cells)


def score_cell(is_percent: bool, estimate: Estimate | None) -> Cell:
    return Percent(estimate) if is_percent and estimate else estimate


def _cell(name: str, estimate: Estimate) -> Cell:
    return score_cell(is_proportion(name), estimate)
