"""The mean corruption error against the sums of the paper's equation, done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stresslens.core.errors import DataError
from stresslens.metrics.corruption_error import ALEXNET, corruption_errors

WRONG = np.zeros((2, 5, 4), bool)
WRONG[0, :, 0] = True  # fog: one of four images is wrong at every severity
WRONG[1, 4] = True  # snow: all four, at severity 5 only


def test_without_a_baseline_it_is_the_mean_error() -> None:
    errors, mean = corruption_errors(WRONG, ["fog", "snow"], None)
    assert errors == pytest.approx({"fog": 0.25, "snow": 0.2})
    assert mean.value == pytest.approx((0.25 + 0.2) / 2)
    assert mean.n == 4
    assert mean.low <= mean.value <= mean.high <= 1


def test_with_a_baseline_errors_are_divided_before_they_are_averaged() -> None:
    baseline = {"fog": 0.5, "snow": 0.8, "other": 0.1}
    errors, mean = corruption_errors(WRONG, ["fog", "snow"], baseline)
    sums = {"fog": (5 * 0.25) / (5 * 0.5), "snow": 1.0 / (5 * 0.8)}
    assert errors == pytest.approx(sums)
    assert mean.value == pytest.approx((sums["fog"] + sums["snow"]) / 2)
    assert mean.high <= (1 / 0.5 + 1 / 0.8) / 2


def test_a_model_against_itself_has_one() -> None:
    wrong = np.random.default_rng(0).random((3, 5, 200)) < 0.3
    own = {name: float(cells.mean()) for name, cells in zip("abc", wrong)}
    errors, mean = corruption_errors(wrong, list("abc"), own)
    assert errors == pytest.approx(dict.fromkeys("abc", 1.0))
    assert mean.value == pytest.approx(1)


def test_the_interval_covers_the_truth() -> None:
    numbers, inside = np.random.default_rng(0), 0
    for _ in range(100):
        difficulty = numbers.random(100)
        wrong = numbers.random((4, 5, 100)) < difficulty
        _, mean = corruption_errors(wrong, list("abcd"), None)
        inside += mean.low <= 0.5 <= mean.high
    assert inside >= 93


@pytest.mark.parametrize("baseline", [{"fog": 0.5}, {"fog": 0.5, "snow": 0.0}])
def test_a_baseline_without_a_corruption_or_an_error_is_refused(baseline: dict[str, float]) -> None:
    with pytest.raises(DataError, match="the baseline has no error for snow"):
        corruption_errors(WRONG, ["fog", "snow"], baseline)


def test_the_benchmark_has_fifteen_corruptions() -> None:
    assert len(ALEXNET) == 15
    assert all(0 < error < 1 for error in ALEXNET.values())
