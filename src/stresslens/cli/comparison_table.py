"""The table of a comparison on the terminal: each run or variant by the metric, in its unit."""

from __future__ import annotations

import math

from stresslens.comparison.schema import ComparisonFile
from stresslens.core.types import Estimate
from stresslens.metrics.measures import measure_of


def figure_rows(compared: ComparisonFile) -> list[list[str]]:
    """Name, figure, interval, images and method of each run or variant."""
    written = _in_percent if measure_of(compared.metric).is_share else _as_it_is
    return [
        [name, *written(estimate), str(estimate.n), estimate.method]
        for name, estimate in compared.recipes.items()
    ]


def _in_percent(e: Estimate) -> tuple[str, str]:
    ends = "–" if math.isnan(e.low) else f"{e.low * 100:.2f} to {e.high * 100:.2f}"
    return f"{e.value * 100:.2f} %", ends


def _as_it_is(e: Estimate) -> tuple[str, str]:
    ends = f"at least {e.low:.4f}" if math.isinf(e.high) else f"{e.low:.4f} to {e.high:.4f}"
    return f"{e.value:.4f}", ends
