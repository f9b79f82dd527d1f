"""Paired differences of values of any size: what their interval and p are in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stresslens.metrics.paired_values import paired_values


def test_many_even_images_are_a_paired_t_test_of_their_values() -> None:
    delta = np.random.default_rng(0).normal(0.02, 1, (1, 4000))
    paired = paired_values(delta)
    low, high = paired.bounds(0.95)
    expected = stats.t.interval(0.95, 3999, delta.mean(), stats.sem(delta[0]))
    assert (low, high) == pytest.approx(expected, abs=0.001)
    assert paired.p == pytest.approx(stats.ttest_1samp(delta[0], 0).pvalue, abs=0.01)


def test_images_that_decide_alone_are_few() -> None:
    delta = np.zeros((1, 1000))
    delta[0, :3] = 100.0
    freedom = paired_values(delta).table.freedom
    assert freedom is not None
    assert 1 < freedom < 2.1
    even = paired_values(np.tile([-1.0, 1.0], 500)[None]).table.freedom
    assert even == pytest.approx(999)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_interval_ends_at_0_where_p_is_one_minus_its_level(level: float) -> None:
    delta = np.random.default_rng(3).normal(0.1, 1, (3, 300)) + 0.05
    for bias in (0.0, 0.05, -0.05):
        paired = paired_values(delta, bias=bias)
        low, high = paired.bounds(1 - paired.p)
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-6)
        low, high = paired.bounds(level)
        assert (low > 0 or high < 0) == (paired.p < 1 - level)


def test_the_bias_moves_one_end_alone() -> None:
    delta = np.random.default_rng(0).normal(0.3, 1, (1, 500))
    plain, higher, lower = (paired_values(delta, bias=bias) for bias in (0.0, 0.1, -0.1))
    low, high = plain.bounds(0.95)
    assert higher.bounds(0.95) == pytest.approx((low - 0.1, high))
    assert lower.bounds(0.95) == pytest.approx((low, high + 0.1))
    assert higher.p > plain.p == pytest.approx(lower.p)
    assert paired_values(delta, bias=2 * float(delta.mean())).p == 1.0


def test_values_that_never_differ_show_the_weight_of_one_image() -> None:
    small, large = (paired_values(np.zeros((1, 100)), whole=whole).bounds(0.95)[1] for whole in (1.0, 7.0))
    assert large == pytest.approx(7 * small)
    assert math.isfinite(large)
    assert paired_values(np.zeros((1, 100))).p == 1.0
