"""The quantile of the range of normal values, beside its closed form and scipy's."""

from __future__ import annotations

import math

import pytest
from scipy.special import ndtri
from scipy.stats import studentized_range

from stresslens.metrics.normal_range import range_quantile


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95, 0.999])
def test_the_range_of_two_values_is_that_of_their_difference(level: float) -> None:
    assert range_quantile(level, 2) == pytest.approx(math.sqrt(2) * ndtri((1 + level) / 2), rel=1e-9)


@pytest.mark.parametrize("size", [3, 5, 20, 300])
def test_the_quantile_is_that_of_scipy(size: int) -> None:
    assert range_quantile(0.95, size) == pytest.approx(studentized_range.ppf(0.95, size, math.inf), rel=1e-8)
