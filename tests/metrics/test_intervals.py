"""Intervals against scipy's, and whether they cover what they say they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import MANY, balanced, bootstrap_mean, logit_normal, t_mean, wilson

QUICK = settings(max_examples=60, deadline=None)


@QUICK
@given(st.integers(1, 20_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    found = wilson(successes, n, level=level)
    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.value == successes / n
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.n, found.level, found.method, found.unit) == (n, level, "Wilson", "images")


def test_wilson_without_images_knows_nothing() -> None:
    found = wilson(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0, 1, 0)


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.7935), (1, 0.2065, 1.0)])
def test_wilson_of_one_image(successes: int, low: float, high: float) -> None:
    found = wilson(successes, 1)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("n", [10, 1000])
def test_wilson_at_its_ends_touches_them(n: int) -> None:
    assert wilson(0, n).low == 0
    assert wilson(n, n).high == 1
    assert wilson(0, n).high == pytest.approx(1 - wilson(n, n).low)


@pytest.mark.parametrize(("n", "p"), [(30, 0.5), (360, 0.97), (1000, 0.1)])
def test_wilson_covers_about_as_often_as_it_says(n: int, p: float) -> None:
    """The exact coverage, summed over the binomial: Wilson's swings around 0.95, by less than 0.03
    at these sizes."""
    covered = [
        low <= p <= high for low, high in ((e.low, e.high) for e in (wilson(k, n) for k in range(n + 1)))
    ]
    coverage = float(stats.binom.pmf(np.arange(n + 1), n, p) @ np.array(covered, float))
    assert abs(coverage - 0.95) < 0.03


@QUICK
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.sampled_from([0.8, 0.95]))
def test_t_mean_is_scipys(values: list[float], level: float) -> None:
    array = np.array(values)
    found = t_mean(array, level=level)
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * stats.sem(array)
    assert (found.low, found.high) == pytest.approx(
        (array.mean() - half, array.mean() + half), rel=1e-9, abs=1e-9
    )
    assert (found.value, found.n, found.unit) == (pytest.approx(array.mean()), len(values), "seeds")


def test_one_seed_has_no_interval() -> None:
    found = t_mean(np.array([0.75]))
    assert (found.value, found.n) == (0.75, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    written = found.as_json()
    assert written["low"] is None
    assert math.isnan(Estimate.from_json(written).high)


def test_t_mean_covers_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(5, 2, size=(2000, 3))
    covered = sum(e.low <= 5 <= e.high for e in map(t_mean, draws))
    assert abs(covered / 2000 - 0.95) < 0.02  # four standard errors


def test_bootstrap_mean_covers_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).exponential(size=(150, 80))
    covered = sum(
        e.low <= 1 <= e.high for e in (bootstrap_mean(values, seed=k) for k, values in enumerate(draws))
    )
    assert (
        0.85 < covered / 150 <= 0.99
    )  # the percentile bootstrap is known to fall a little short of 0.95 on skewed values


def test_bootstrap_mean_is_about_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(size=1500)
    found = bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(1500)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.15 * half
    )
    assert (found.n, found.method, found.unit) == (1500, "bootstrap", "images")


def test_bootstraps_are_seeded_and_narrow_with_the_level() -> None:
    values = np.random.default_rng(2).normal(size=50)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)
    narrow, wide = bootstrap_mean(values, level=0.5), bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("values", [[3.0], [2.0] * 40])
def test_a_mean_of_equal_values_has_no_width(values: list[float]) -> None:
    found = bootstrap_mean(np.array(values))
    assert (found.low, found.value, found.high) == pytest.approx((values[0],) * 3)


def test_the_mean_of_nothing_is_unknown() -> None:
    found = bootstrap_mean(np.zeros(0))
    assert (math.isnan(found.value), math.isnan(found.low), found.n) == (True, True, 0)


@QUICK
@given(st.lists(st.integers(0, 8), min_size=1, max_size=6), st.integers(8, 40))
def test_a_balanced_mean_lies_in_its_interval(successes: list[int], n: int) -> None:
    parts = [wilson(k, n) for k in successes]
    found = balanced(parts)
    assert found.value == pytest.approx(np.mean(successes) / n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert balanced([*parts, wilson(0, 0)]) == found  # a class without images changes nothing


def test_a_balanced_mean_of_one_part_is_the_part_and_of_none_unknown() -> None:
    (part, found) = (wilson(9, 12), balanced([wilson(9, 12)]))
    assert (found.value, found.low, found.high, found.n) == pytest.approx(
        (part.value, part.low, part.high, part.n)
    )
    assert math.isnan(balanced([]).value)
    assert balanced([wilson(10, 10)] * 3).low < 1  # 30 of 30 does not mean certainty


@pytest.mark.parametrize("recalls", [(0.9, 0.5, 0.7), (0.99, 0.97, 1.0)], ids=["middling", "high"])
def test_a_balanced_mean_covers_about_as_often_as_it_says(recalls: tuple[float, ...]) -> None:
    draws = np.random.default_rng(0).binomial(36, recalls, size=(2000, len(recalls)))
    covered = [
        e.low <= np.mean(recalls) <= e.high
        for e in (balanced([wilson(int(k), 36) for k in row]) for row in draws)
    ]
    assert abs(np.mean(covered) - 0.95) < 0.025


def test_the_logit_interval_is_the_normal_one_where_that_is_narrow() -> None:
    influence = np.random.default_rng(0).normal(size=40_000)
    found = logit_normal(0.6, influence)
    half = 1.96 * influence.std() / math.sqrt(len(influence))
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-4)
    near = logit_normal(0.999, influence[:40] / 100)
    assert 0 < near.low < 0.999 < near.high < 1


def test_from_many_images_on_the_normal_interval_is_the_bootstraps() -> None:
    values = np.random.default_rng(0).exponential(size=MANY)
    normal = bootstrap_mean(values)
    boot = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert normal.method == "normal"
    assert (normal.low, normal.high) == pytest.approx((boot.low, boot.high), abs=0.005)
