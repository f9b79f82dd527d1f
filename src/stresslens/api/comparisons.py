"""A comparison of runs or variants, as `sl.compare` returns it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stresslens.api.named_scores import ByName
from stresslens.api.words import public_call
from stresslens.charts.chart import Chart, card_with_charts
from stresslens.comparison.data_sets import DataSetsFile, PairAcrossSets
from stresslens.comparison.schema import Contrast, verdicts_on_margins
from stresslens.core.cards import sentences
from stresslens.core.errors import ConfigError
from stresslens.core.tables import PercentagePoints, ResultTable, Tabular
from stresslens.core.text import brief, counted, enumeration
from stresslens.core.types import Estimate
from stresslens.metrics.measures import measure_of
from stresslens.report.across_data_sets import write_across
from stresslens.report.comparison import difference_chart, forest_chart

SHOWN = 8
"""Contrasts in the chart of a card."""


class Comparison(ByName[Any], Tabular):
    """What `stresslens compare --json` prints, as a dictionary that shows its verdicts, its contrasts
    and their intervals."""

    what = "key"

    def __repr__(self) -> str:
        contrasts = sorted(self._contrasts, key=lambda contrast: not contrast.real)
        real = sum(contrast.real for contrast in contrasts)
        said = [each.verdict for each in contrasts if each.verdict] + self.get("verdicts", [])
        first = brief(said[0], 200) if said else "no verdict"
        return f"Comparison({counted(len(contrasts), 'contrast')}, {real} real: {first})"

    def _repr_html_(self) -> str:
        lead, *rest = self.get("verdicts", []) or ["Nothing was compared."]
        chart = [difference_chart(self._contrasts[:SHOWN])] if self._contrasts else []
        named = [c for c in self._contrasts if c.verdict and c.verdict != lead]
        best = [self["best"]["said"]] if "best" in self else []
        of_margins = [each.verdict for each in verdicts_on_margins(self._contrasts)]
        verdicts = list(dict.fromkeys([*of_margins, *best, *rest, *(c.verdict for c in named)]))
        plans = list(dict.fromkeys(c.plan for c in self._contrasts if c.plan and not c.real))
        return card_with_charts(
            brief(lead, 300),
            sentences(verdicts, 3),
            self._short.html(SHOWN),
            *chart,
            sentences(plans, 1),
            *(sentences(self.get(key, {}).get("sentences", [])) for key in ("corrections", "without_copies")),
        )

    def to_latex(self) -> str:
        """The differences, in percentage points or the unit of the metric, with their intervals and p
        after Holm's correction, as a LaTeX tabular with the rules of the package booktabs."""
        return self._short.latex

    def plot(self) -> Chart:
        """The difference of each contrast with its interval, in percentage points or the unit of the
        metric. Raises ConfigError where nothing was compared."""
        if not self._contrasts:
            raise ConfigError("there is no contrast to draw")
        return difference_chart(self._contrasts)

    @property
    def _short(self) -> ResultTable:
        cells = [(c.a, c.b, _in_its_unit(c), c.p_holm) for c in self._contrasts]
        measure = measure_of(self.get("metric", "accuracy"))
        unit = f", {measure.unit}" if measure.unit else ""
        return ResultTable(("from", "to", f"difference{unit}", "p, Holm"), cells)

    @property
    def _contrasts(self) -> list[Contrast]:
        return [Contrast.model_validate(values) for values in self.get("contrasts", [])]

    def _table(self) -> ResultTable:
        columns = ("contrast", "a", "b", "difference", "p", "p_holm", "real", "verdict")
        cells = [
            (c.contrast, c.a, c.b, _in_its_unit(c), c.p, c.p_holm, c.real, c.verdict) for c in self._contrasts
        ]
        return ResultTable(columns, cells)


def _in_its_unit(contrast: Contrast) -> PercentagePoints | Estimate:
    in_points = measure_of(contrast.metric).is_share
    return PercentagePoints(contrast.difference) if in_points else contrast.difference


class AcrossDataSets(ByName[Any], Tabular):
    """What `stresslens compare --across --json` prints, as a dictionary that shows its verdicts, and the
    difference on each data set."""

    what = "key"

    def __init__(self, told: DataSetsFile) -> None:
        super().__init__(told.as_json())
        self._told = told

    def __repr__(self) -> str:
        verdicts = [pair.verdict for pair in self._told.pairs]
        return f"AcrossDataSets({counted(len(verdicts), 'pair')}: {brief(verdicts[0], 200)})"

    def _repr_html_(self) -> str:
        lead, *rest = self._told.pairs
        return card_with_charts(
            brief(lead.verdict, 300),
            sentences(lead.notes),
            forest_chart(lead),
            sentences([pair.verdict for pair in rest], 5),
            sentences(self._told.left_out, 3),
        )

    def plot(self, a: str | None = None, b: str | None = None) -> Chart:
        """The differences of one pair, b minus a, by data set, with the average and a new data set; by
        default of the first pair. Raises ConfigError for two that were not compared."""
        return forest_chart(self._pair(a, b))

    @public_call()
    def save(self, path: str | Path) -> Path:
        """Writes an HTML page with the verdicts, a chart and a table for each pair, and whether the data
        sets can be pooled, and returns its path. It is one file that needs no network. Raises ConfigError
        for a name that does not end in .html."""
        return write_across(Path(path), self._told)

    def _pair(self, a: str | None, b: str | None) -> PairAcrossSets:
        for pair in self._told.pairs:
            if a in (None, pair.a) and b in (None, pair.b):
                return pair
        pairs = enumeration([f"{pair.a} and {pair.b}" for pair in self._told.pairs])
        raise ConfigError(f"a is {a!r} and b is {b!r}; compared were {pairs}")

    def _table(self) -> ResultTable:
        columns = ("a", "b", "data set", "difference", "with the others")
        rows = [
            (pair.a, pair.b, each.data_set, PercentagePoints(each.difference), each.shrunken)
            for pair in self._told.pairs
            for each in pair.sets
        ]
        return ResultTable(columns, rows)
