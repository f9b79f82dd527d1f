"""A learning-rate range test from Python, and what it returns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.api.arguments import check_whole_number
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.training_task import training_task
from stresslens.api.words import public_call
from stresslens.charts.chart import Chart, card_with_charts
from stresslens.core.data import Data
from stresslens.core.draws import seed_number
from stresslens.core.tables import ResultTable, RowTable
from stresslens.report.learning_rates import rate_chart
from stresslens.training.rate_range import SEEDS, RateRange, central_rate, rate_ranges, spread_in_words


class LearningRates(RowTable):
    """What a learning-rate range test has found: `suggestion`, the `lowest` and the `highest` rate that a
    seed suggests, and the `curves`, one for each seed with its `seed`, `rates`, smoothed `losses` and its own
    `suggestion`. As a table it has a row for each seed."""

    def __init__(self, curves: Sequence[RateRange]) -> None:
        self.curves = tuple(curves)

    @property
    def suggestion(self) -> float:
        """The geometric mean of what the seeds suggest."""
        return central_rate(self.curves)

    @property
    def lowest(self) -> float:
        return min(each.suggestion for each in self.curves)

    @property
    def highest(self) -> float:
        return max(each.suggestion for each in self.curves)

    def __str__(self) -> str:
        return f"lr={self.suggestion:.2g} ({spread_in_words(self.curves)})"

    def __repr__(self) -> str:
        return f"LearningRates({self})"

    def _repr_html_(self) -> str:
        return card_with_charts(f"Learning-rate range test: {self}", self.plot(), self._table().html())

    def plot(self) -> Chart:
        """The smoothed loss over the learning rate, a line for each seed, with a ring at its suggestion."""
        return rate_chart(self.curves)

    def _table(self) -> ResultTable:
        cells = [(each.seed, each.suggestion, min(each.losses)) for each in self.curves]
        return ResultTable(("seed", "suggested rate", "lowest loss"), cells)


@public_call()
def find_lr(
    model: str | Mapping[str, Any] | nn.Module = "simple_cnn",
    data: str | os.PathLike[str] | Mapping[str, Any] | Data = "digits",
    *,
    seed: int = 0,
    repeats: int = SEEDS,
    input: Mapping[str, Any] | None = None,
    progress: Progress = True,
    **options: Any,
) -> LearningRates:
    """Suggests a learning rate: the loss is followed while the rate rises from 1e-6 to 10 within 100 updates
    (Smith 2017). A seed suggests a tenth of the rate at which its smoothed loss is lowest.

    The arguments are those of `train`; your module is copied. `repeats` seeds are tested, from `seed` on.
    `schedule` and `epochs` have no effect. Nothing is written, and nothing stays trained. Raises ConfigError
    for an estimator or a probe, which has no updates, and DataError."""
    check_whole_number("repeats", repeats)
    with tempfile.TemporaryDirectory() as folder, shown(progress) as display:
        first = training_task(
            model, data, options, out=Path(folder), name=None, seed=seed, input=input, more={}
        )
        curves: list[RateRange] = []
        for curve in rate_ranges([replace(first, seed=seed_number(first.seed + k)) for k in range(repeats)]):
            curves.append(curve)
            display("learning rates", len(curves), repeats)
    return LearningRates(curves)
