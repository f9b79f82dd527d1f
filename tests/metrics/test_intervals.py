"""Intervals against scipy's, and whether they cover what they say they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from stresslens.core.types import Estimate
from stresslens.metrics.classification import f1_scores
from stresslens.metrics.intervals import MANY, bootstrap_confusion, bootstrap_mean, t_mean, wilson

QUICK = settings(max_examples=60, deadline=None)
Counts = NDArray[np.int64]


def share_right(confusion: Counts) -> NDArray[np.float64]:
    return (np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-1, -2)))[..., None]


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
    """The exact coverage, summed over the binomial: Wilson's swings around 0.95, by less than 0.03 at these sizes."""
    covered = [low <= p <= high for low, high in ((e.low, e.high) for e in (wilson(k, n) for k in range(n + 1)))]
    coverage = float(stats.binom.pmf(np.arange(n + 1), n, p) @ np.array(covered, float))
    assert abs(coverage - 0.95) < 0.03


@QUICK
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.sampled_from([0.8, 0.95]))
def test_t_mean_is_scipys(values: list[float], level: float) -> None:
    array = np.array(values)
    found = t_mean(array, level=level)
    half = stats.t.ppf(0.5 + level / 2, len(values) - 1) * stats.sem(array)
    assert (found.low, found.high) == pytest.approx((array.mean() - half, array.mean() + half), rel=1e-9, abs=1e-9)
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
    covered = sum(e.low <= 1 <= e.high for e in (bootstrap_mean(values, seed=k) for k, values in enumerate(draws)))
    assert 0.85 < covered / 150 <= 0.99  # the percentile bootstrap is known to fall a little short of 0.95 on skewed values


def test_bootstrap_mean_is_about_the_normal_interval() -> None:
    values = np.random.default_rng(2).normal(size=1500)
    found = bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / math.sqrt(1500)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
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


def test_bootstrap_confusion_is_the_bootstrap_over_images() -> None:
    """Drawing the matrix from a multinomial against resampling the images themselves, one by one."""
    confusion = np.array([[30, 5, 1], [4, 25, 3], [0, 2, 20]])
    found = bootstrap_confusion(confusion, f1_scores)
    cells = np.repeat(np.arange(9), confusion.ravel())
    generator = np.random.default_rng(9)
    drawn = [np.bincount(generator.choice(cells, len(cells)), minlength=9).reshape(3, 3) for _ in range(2000)]
    slow = np.quantile([f1_scores(matrix) for matrix in drawn], [0.025, 0.975], axis=0)
    assert [e.low for e in found] == pytest.approx(slow[0].tolist(), abs=0.015)
    assert [e.high for e in found] == pytest.approx(slow[1].tolist(), abs=0.015)
    assert [e.n for e in found] == [90] * 3


def test_bootstrap_confusion_of_a_share_is_about_wilsons() -> None:
    found = bootstrap_confusion(np.array([[400, 50], [60, 490]]), share_right)[0]
    expected = wilson(890, 1000)
    assert found.value == expected.value
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)


@QUICK
@given(st.lists(st.integers(0, 9), min_size=9, max_size=9).filter(any))
def test_bootstrap_confusion_covers_its_own_value(cells: list[int]) -> None:
    confusion = np.array(cells).reshape(3, 3)
    for estimate, value in zip(bootstrap_confusion(confusion, f1_scores), f1_scores(confusion), strict=True):
        assert estimate.low <= estimate.value == value <= estimate.high


@pytest.mark.parametrize("confusion", [[[5, 0], [0, 5]], [[0, 5], [5, 0]], [[1, 0], [0, 0]]], ids=["right", "wrong", "one image"])
def test_bootstrap_confusion_at_the_edges(confusion: list[list[int]]) -> None:
    (found,) = bootstrap_confusion(np.array(confusion), share_right)
    assert found.low == found.value == found.high


def test_from_many_images_on_the_normal_interval_is_the_bootstraps() -> None:
    values = np.random.default_rng(0).exponential(size=MANY)
    normal = bootstrap_mean(values)
    boot = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert normal.method == "normal"
    assert (normal.low, normal.high) == pytest.approx((boot.low, boot.high), abs=0.005)
