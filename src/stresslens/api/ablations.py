"""What each ingredient of a recipe is worth, as `sl.ablate(…).ablation` gives it."""

from __future__ import annotations

from stresslens.api.words import public_call
from stresslens.charts.chart import Chart, card_with_charts
from stresslens.comparison.ablation_words import ablation_sentences, unit_of, worth_in_words
from stresslens.comparison.schema import Ablation as AblationFile
from stresslens.comparison.schema import Contrast, CostRatio, WorthTable
from stresslens.core.cards import sentences
from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest
from stresslens.core.tables import Cell, PercentagePoints, ResultTable, Tabular
from stresslens.core.text import brief, counted
from stresslens.report.ablation import worth_chart


class Ablation(Tabular):
    """What each ingredient of a recipe is worth: a row for each ingredient and metric, the one that is worth
    most in the full recipe first.

    A gain in full is the full recipe minus the full one without the ingredient, a gain alone the bare recipe
    with it minus the bare one; their intervals and verdicts are those of the study's contrasts.
    `training time` is that of the full recipe over that without the ingredient.
    """

    def __init__(self, told: AblationFile) -> None:
        self._told = told
        self._tables = told.tables or [WorthTable()]  # none where no two of its runs could be compared

    def __repr__(self) -> str:
        first = self._tables[0]
        said = [
            f"{r.ingredient} {worth_in_words(r.left_out or r.added, first)} {r.verdict}" for r in first.rows
        ]
        return f"Ablation({counted(len(said), 'ingredient')}: {brief('; '.join(said), 200)})"

    def _repr_html_(self) -> str:
        first = self._tables[0]
        return card_with_charts(
            f"What each ingredient of {self._told.full} is worth"
            if self._told.full
            else f"What each ingredient is worth beside {self._told.bare}",
            worth_chart(self._told, first),
            self._of(first, with_metric=False).html(),
            sentences([*ablation_sentences(first), *filter(None, [self._told.excluded])]),
        )

    @property
    def metrics(self) -> list[str]:
        """What the ingredients were judged by: accuracy, robust accuracy under each attack, and the metrics
        of the study."""
        return [table.metric for table in self._tables]

    @public_call()
    def plot(self, metric: str = "accuracy") -> Chart:
        """The gain of each ingredient in full and alone by one of the `metrics`, with intervals, and the
        training time that it costs. Raises ConfigError for another metric."""
        for table in self._tables:
            if table.metric == metric:
                return worth_chart(self._told, table)
        raise ConfigError(f"the ablation is not by {metric!r}; {closest(metric, self.metrics)}")

    def _table(self) -> ResultTable:
        tables = [self._of(table, with_metric=True) for table in self._tables]
        return ResultTable(tables[0].columns, [row for table in tables for row in table.cells])

    def _of(self, table: WorthTable, *, with_metric: bool) -> ResultTable:
        columns = (
            "ingredient",
            "gain in full",
            "gain alone",
            "in full minus alone",
            "verdict",
            "training time",
        )
        costs = {each.name: each.costs for each in self._told.ingredients}
        in_points = unit_of(table) == "points"
        cells: list[tuple[Cell, ...]] = [
            (
                row.ingredient,
                *(_gain(each, in_points) for each in (row.left_out, row.added, row.interaction)),
                row.verdict,
                _training_time(costs.get(row.ingredient, [])),
            )
            for row in table.rows
        ]
        if not with_metric:
            return ResultTable(columns, cells)
        named = [(row[0], table.metric, *row[1:]) for row in cells]
        return ResultTable((columns[0], "metric", *columns[1:]), named)


def _gain(contrast: Contrast | None, in_points: bool) -> Cell | PercentagePoints:
    if contrast is None:
        return None
    gain = contrast.adjusted or contrast.difference
    return PercentagePoints(gain) if in_points else gain


def _training_time(costs: list[CostRatio]) -> Cell:
    return next((each.ratio for each in costs if each.measure == "seconds to the stop"), None)
