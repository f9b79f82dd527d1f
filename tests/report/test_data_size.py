"""What is said of a data-size curve."""

from __future__ import annotations

import pytest

from stresslens.core.types import Estimate
from stresslens.metrics.power_law import power_law
from stresslens.report.data_size import Sizes, _error

SIZES = [600, 1800, 6000, 18000, 54000]


def sizes(values: list[float], half: float) -> Sizes:
    accuracies = [Estimate(v, v - half * (1 - v), v + half * (1 - v), 10_000, "Wilson") for v in values]
    return Sizes("lenet", 0, SIZES, accuracies, [50] * 5, power_law(SIZES, [_error(e) for e in accuracies]))


@pytest.mark.parametrize(
    ("values", "half", "said"),
    [
        ([1 - 5 * n**-0.5 for n in SIZES], 0.05, "ten times the data leaves 31.6"),
        ([1 - 5 * n**-0.5 for n in SIZES], 0.05, "If the law continues, 108,000 images give 98.5"),
        ([0.8, 0.9, 0.97, 0.9701, 0.9702], 0.01, "They do not follow it closely"),
        ([0.9, 0.91, 0.9, 0.89, 0.9], 0.2, "this does not show whether more data helps"),
    ],
)
def test_the_law_in_words(values: list[float], half: float, said: str) -> None:
    assert said in sizes(values, half).said
