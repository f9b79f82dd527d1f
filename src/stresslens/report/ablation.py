"""What each ingredient of a recipe is worth, for a study's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stresslens.charts.chart import Chart
from stresslens.charts.curve_colours import style_of
from stresslens.charts.dot_charts import Interval, interval_chart
from stresslens.comparison.ablation_words import (
    gains_of,
    price_in_words,
    ratio_in_words,
    table_title,
    unit_of,
    worth_in_words,
    worth_sentences,
)
from stresslens.comparison.schema import AblatedIngredient, Ablation, Contrast, IngredientWorth, WorthTable
from stresslens.config.ablation import kept_in_words
from stresslens.report.load import StudyFolder

IN_FULL, ALONE = 0, 1
"""The places of their colours."""


@dataclass(frozen=True)
class WorthSection:
    """The table and the picture of one metric."""

    of: WorthTable
    ingredients: Mapping[str, AblatedIngredient]
    chart: Chart

    @property
    def title(self) -> str:
        return table_title(self.of)

    @property
    def unit(self) -> str:
        return unit_of(self.of)

    @property
    def gains(self) -> dict[str, str]:
        return gains_of(self.of)

    @property
    def sentences(self) -> list[str]:
        return worth_sentences(self.of)

    def gain(self, contrast: Contrast | None) -> str:
        return worth_in_words(contrast, self.of)

    def settings(self, row: IngredientWorth) -> str:
        return self.ingredients[row.ingredient].settings

    def price(self, row: IngredientWorth) -> str:
        return price_in_words(self.ingredients[row.ingredient].costs)

    def seconds(self, row: IngredientWorth) -> float | None:
        """The ratio of the training times, by which the column of prices is sorted."""
        costs = self.ingredients[row.ingredient].costs
        return costs[0].ratio.value if costs else None


@dataclass(frozen=True)
class AblationSection:
    full: str | None
    bare: str
    tables: Sequence[WorthSection]
    kept: str
    excluded: str


def ablation_section(study: StudyFolder) -> AblationSection | None:
    """The tables of an ablation; None for a study without one, or before its runs were compared."""
    found = study.comparison.ablation if study.comparison else None
    if found is None or not found.tables:
        return None
    ingredients = {each.name: each for each in found.ingredients}
    tables = [WorthSection(table, ingredients, worth_chart(found, table)) for table in found.tables]
    return AblationSection(found.full, found.bare, tables, kept_in_words(found.kept), found.excluded)


def worth_chart(ablation: Ablation, table: WorthTable) -> Chart:
    """The gain of each ingredient in the full recipe and alone, with intervals and the training time that it
    costs."""
    costs = {each.name: each.costs for each in ablation.ingredients}
    scale = 100 if unit_of(table) == "points" else 1
    alone = ", alone" if "left_out" in gains_of(table) else ""
    rows = []
    for row in table.rows:
        price = f", time {ratio_in_words(paid[0], interval=False)}" if (paid := costs[row.ingredient]) else ""
        for contrast, name, place in (
            (row.left_out, row.ingredient, IN_FULL),
            (row.added, f"{row.ingredient}{alone}", ALONE),
        ):
            if contrast is not None:
                e = contrast.adjusted or contrast.difference
                written = worth_in_words(contrast, table).partition(" (")[0]
                told = written if row.left_out and place == ALONE else f"{written}{price}"
                value, low, high = (scale * each for each in (e.value, e.low, e.high))
                rows.append(Interval(name, value, low, high, place, told))
    unit = "percentage points" if scale == 100 else unit_of(table)
    chart = interval_chart(
        rows,
        title=f"What each ingredient is worth in {table_title(table)}, and what it costs",
        x_label=f"gain, {unit}" if unit else "gain",
        reference=(0.0, "nothing"),
        label=34,
    )
    shown = {row.place for row in rows}
    keys = ((IN_FULL, "in the full recipe"), (ALONE, "alone, in the bare recipe"))
    return replace(chart, keys=[(f"line {style_of(place)}", name) for place, name in keys if place in shown])
