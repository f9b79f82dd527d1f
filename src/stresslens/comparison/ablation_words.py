"""An ablation in words: its gains, prices and plans, as the terminal, Markdown and the page write them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stresslens.comparison.schema import Ablation, Contrast, CostRatio, WorthTable
from stresslens.core.format import points, signed_plain
from stresslens.core.text import enumeration
from stresslens.metrics.measures import Measure, known_measure

COSTS = {
    "seconds to the stop": "training time",
    "peak memory": "memory",
    "parameters": "parameters",
    "multiply-adds": "multiply-adds",
    "seconds to score": "scoring time",
}
"""The costs that make a price, in words."""
TIMES = 2.0
"""From this ratio on a price is written as a multiple: ×2.4."""


def measure_of_table(table: WorthTable) -> Measure | None:
    """What a table is of; None for a robust accuracy, which is named by its attack."""
    return known_measure(table.metric)


def unit_of(table: WorthTable) -> str:
    """`points`, or another unit; empty without one."""
    measure = measure_of_table(table)
    return "points" if measure is None else measure.unit


def table_title(table: WorthTable) -> str:
    measure = measure_of_table(table)
    return table.metric if measure is None else measure.words


def worth_in_words(contrast: Contrast | None, table: WorthTable) -> str:
    """A gain with its interval, after Holm's correction where that decides; a dash where there is none."""
    if contrast is None:
        return "–"
    written = points if unit_of(table) == "points" else signed_plain
    return written(contrast.adjusted or contrast.difference)


def price_in_words(costs: Sequence[CostRatio]) -> str:
    """`training time +12 % (+10 to +14), parameters +3 %`; a dash where nothing is known."""
    return ", ".join(f"{COSTS[cost.measure]} {ratio_in_words(cost)}" for cost in costs) or "–"


def ratio_in_words(cost: CostRatio, *, interval: bool = True) -> str:
    """`+12 % (+10 to +14)`, from `TIMES` on `×2.4 (2.1 to 2.7)`."""
    e = cost.ratio
    ends = interval and math.isfinite(e.low) and math.isfinite(e.high)
    if e.value >= TIMES:
        return f"×{e.value:.2g}" + (f" ({e.low:.2g} to {e.high:.2g})" if ends else "")
    value = _percent(e.value)
    return f"{value} %" + (f" ({_percent(e.low)} to {_percent(e.high)})" if ends else "")


def _percent(ratio: float) -> str:
    text = f"{100 * (ratio - 1):+,.0f}".replace("-", "−")
    return "0" if text in ("+0", "−0") else text


GAINS = {"left_out": "gain in full", "added": "gain alone", "interaction": "in full minus alone"}
"""The columns of gains, by where a row has them."""


def gains_of(table: WorthTable) -> dict[str, str]:
    """The columns of gains that a table has: of both sides, or of the only one that was asked for."""
    return {name: gain for name, gain in GAINS.items() if any(getattr(row, name) for row in table.rows)}


def headings(table: WorthTable) -> list[str]:
    """The heads of a table's columns."""
    unit = unit_of(table)
    gains = [
        f"{gain}{f', {unit}' if unit and name != 'interaction' else ''}"
        for name, gain in gains_of(table).items()
    ]
    return ["ingredient", *gains, "verdict", "price"]


def worth_rows(ablation: Ablation, table: WorthTable) -> list[list[str]]:
    """The cells of a table; the price stands in each, so that a row is read alone."""
    costs = {each.name: each.costs for each in ablation.ingredients}
    return [
        [
            row.ingredient,
            *(worth_in_words(getattr(row, name), table) for name in gains_of(table)),
            row.verdict,
            price_in_words(costs.get(row.ingredient, [])),
        ]
        for row in table.rows
    ]


def ablation_sentences(table: WorthTable) -> list[str]:
    """What is said below a table: `worth_sentences`, and what it would take to tell what is not
    distinguishable."""
    return [*worth_sentences(table), *(f"{row.ingredient}: {row.plan}" for row in table.rows if row.plan)]


def worth_sentences(table: WorthTable) -> list[str]:
    """What all ingredients together are worth, and which are worth something else beside the others than
    alone."""
    told = [f"all together: {table.together.verdict}"] if table.together else []
    for sign, words in ((1, "more"), (-1, "less")):
        names = [r.ingredient for r in table.rows if r.interaction and r.interaction.better == sign]
        if names:
            verb = "is" if len(names) == 1 else "are"
            told.append(f"{enumeration(names)} {verb} worth {words} beside the others than alone")
    return told
