"""The chart of a learning-rate range test: the smoothed loss over the learning rate, for each seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stresslens.charts.axes import Axis, linear_axis, short_number
from stresslens.charts.chart import Chart
from stresslens.charts.line_charts import Series, line_chart
from stresslens.training.rate_range import RateRange


def rate_chart(ranges: Sequence[RateRange]) -> Chart:
    """A line for each seed, with a ring at the rate that it suggests."""
    series = [
        Series(
            f"seed {each.seed} (○ {each.suggestion:.2g})",
            list(zip(each.rates, each.losses)),
            place,
            marks=[(each.suggestion, _loss_at(each.suggestion, each))],
            mark="suggested",
        )
        for place, each in enumerate(ranges)
    ]
    axes = (
        _decades([x for s in series for x, _ in (*s.points, *s.marks)]),
        linear_axis([y for s in series for _, y in s.points]),
    )
    return line_chart(
        series, title="Learning-rate range test", x_label="learning rate", y_label="smoothed loss", axes=axes
    )


def _decades(rates: Sequence[float]) -> Axis:
    """A tick at every power of ten around the rates."""
    first = math.floor(math.log10(min(rates)) + 1e-9)
    last = math.ceil(math.log10(max(rates)) - 1e-9)
    ticks = [10.0**k for k in range(first, max(last, first + 1) + 1)]
    return Axis(ticks, [short_number(tick) for tick in ticks], log=True)


def _loss_at(rate: float, each: RateRange) -> float:
    """The smoothed loss at the tested rate next to this one."""
    nearest = min(range(len(each.rates)), key=lambda k: abs(math.log(each.rates[k] / rate)))
    return each.losses[nearest]
