"""Intervals against scipy's, and whether they cover what they say they cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import MANY, balanced, bounded_mean, logit_normal, t_mean, wilson

QUICK = settings(max_examples=60, deadline=None)


@QUICK
@given(st.integers(1, 20_000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    found = wilson(successes, n, level=level)
    test = stats.binomtest(successes, n)
    expected, exact = test.proportion_ci(level, "wilson"), test.proportion_ci(2 * level - 1, "exact")
    low, high = (
        (min(expected.low, exact.low), max(expected.high, exact.high))
        if level > 0.5
        else (found.low, found.high)
    )
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    if level == 0.95 and 10 <= successes <= n - 10:
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-3)
    assert found.value == successes / n
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert (found.n, found.level, found.method, found.unit) == (n, level, "Wilson", "images")


def test_wilson_without_images_knows_nothing() -> None:
    found = wilson(0, 0)
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0, 1, 0)


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.95), (1, 0.05, 1.0)])
def test_wilson_of_one_image(successes: int, low: float, high: float) -> None:
    found = wilson(successes, 1)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("n", [1, 3, 5, 20, 36, 100, 360, 2000])
def test_wilson_covers_where_errors_are_rare(n: int) -> None:
    """The exact coverage, at every share from 1e-6 to a half; Wilson's own falls to 84 %."""
    bounds = [(e.low, e.high) for e in (wilson(k, n) for k in range(n + 1))]
    low, high = np.array(bounds).T[..., None]
    p = np.geomspace(1e-6, 0.5, 500)
    covered = (stats.binom.pmf(np.arange(n + 1)[:, None], n, p) * ((low <= p) & (p <= high))).sum(0)
    assert covered.min() > 0.92


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


@QUICK
@given(st.integers(0, 300), st.integers(1, 300))
def test_the_mean_of_zeros_and_ones_has_clopper_and_pearsons_interval(successes: int, n: int) -> None:
    successes = min(successes, n)
    found = bounded_mean(np.arange(n) < successes, (0.0, 1.0))
    exact = stats.binomtest(successes, n).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx(
        (exact.low, exact.high), abs=0.12 * (exact.high - exact.low)
    )
    assert found.low <= found.value <= found.high
    assert (found.n, found.unit) == (n, "images")


def rare_large(images: int, generator: np.random.Generator) -> np.ndarray:
    """Values near 0, and in one image of fifty a large one, of at most 10."""
    rare = generator.random(images) < 0.02
    return np.where(rare, 10 * generator.random(images), 0.01 * generator.random(images))


@pytest.mark.breadth(1)
@pytest.mark.parametrize("n", [5, 20, 100, 360, 3000])
def test_a_bounded_mean_covers_where_rare_values_decide(n: int) -> None:
    generator = np.random.default_rng(1)
    truth = 0.02 * 5 + 0.98 * 0.005
    found = [bounded_mean(rare_large(n, generator), (0.0, 10.0)) for _ in range(300)]
    assert np.mean([e.low <= truth <= e.high for e in found]) > 0.93


def test_a_bounded_mean_is_about_the_normal_interval_where_no_value_is_rare() -> None:
    values = np.random.default_rng(2).random(1500)
    found = bounded_mean(values, (0.0, 1.0))
    half = 1.96 * values.std(ddof=1) / math.sqrt(1500)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.15 * half
    )


def test_a_bounded_mean_is_seeded_and_narrow_with_the_level_and_has_no_order() -> None:
    values = np.random.default_rng(2).random(50)
    found = bounded_mean(values, (0.0, 1.0))
    assert found == bounded_mean(values[::-1].copy(), (0.0, 1.0)) != bounded_mean(values, (0.0, 1.0), seed=1)
    narrow, wide = (bounded_mean(values, (0.0, 1.0), level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_bound_that_is_not_known_makes_no_upper_end() -> None:
    found = bounded_mean(np.array([0.1, 0.2]), (0.0, math.inf))
    assert (math.isfinite(found.low), found.high) == (True, math.inf)
    again = Estimate.from_json(found.as_json())
    assert (found.as_json()["high"], again.high, again.low) == (None, math.inf, found.low)


def test_the_mean_of_nothing_is_unknown() -> None:
    found = bounded_mean(np.zeros(0), (0.0, 1.0))
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
    found, exact = balanced([wilson(9, 12)]), stats.binomtest(9, 12).proportion_ci(method="exact")
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.75, exact.low, exact.high, 12))
    assert math.isnan(balanced([]).value)
    assert balanced([wilson(10, 10)] * 3).low < 1  # 30 of 30 does not mean certainty


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    ("sizes", "recalls"),
    [
        ((36,) * 3, (0.9, 0.5, 0.7)),
        ((36,) * 3, (0.99, 0.97, 1.0)),
        ((36,) * 10, (0.983,) * 10),
        ((36,) * 10, (0.998,) * 10),
        ((10,) * 100, (0.95,) * 100),
        ((2,) * 50, (0.9,) * 50),
        ((340, 10, 10), (0.99, 0.9, 0.8)),
        ((50, 50, 50, 1), (0.9,) * 4),
        ((36,) * 10, (1.0,) * 10),
        ((350, 10), (1.0, 0.0)),
    ],
    ids=[
        "middling",
        "high",
        "10 of 98.3 %",
        "99.8 %",
        "100 classes",
        "two images a class",
        "unbalanced",
        "one image of a class",
        "all right",
        "one class missed",
    ],
)
def test_a_balanced_mean_covers_about_as_often_as_it_says(
    sizes: tuple[int, ...], recalls: tuple[float, ...]
) -> None:
    draws = np.random.default_rng(0).binomial(sizes, recalls, size=(400, len(recalls)))
    found = [balanced([wilson(int(k), n) for k, n in zip(row, sizes, strict=True)]) for row in draws]
    covered = np.mean([e.low - 1e-12 <= np.mean(recalls) <= e.high + 1e-12 for e in found])
    assert covered > 0.925
    if sizes == (36,) * 10:  # not wider than needed: as wide as that of the accuracy, if classes are alike
        pooled = [wilson(int(row.sum()), 360) for row in draws]
        wide, narrow = (np.mean([e.high - e.low for e in each]) for each in (found, pooled))
        assert wide < 1.25 * narrow


def test_the_logit_interval_is_the_normal_one_where_that_is_narrow() -> None:
    influence = np.random.default_rng(0).normal(size=40_000)
    found = logit_normal(0.6, influence)
    half = 1.96 * influence.std() / math.sqrt(len(influence))
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-4)
    near = logit_normal(0.999, influence[:40] / 100)
    assert 0 < near.low < 0.999 < near.high < 1


def test_where_few_images_decide_the_interval_reaches_beyond_the_normal_one() -> None:
    influence = np.full(400, 0.001)
    influence[0] = -0.399
    few, many = logit_normal(0.99, influence), logit_normal(0.99, np.resize([-0.02, 0.02], 400))
    assert 0.99 - few.low > 1.5 * 1.96 * np.linalg.norm(influence) / 400
    assert 0.99 - many.low < 1.5 * 1.96 * 0.02 / 20


def test_many_images_are_drawn_together_with_the_same_result() -> None:
    generator = np.random.default_rng(0)
    values = rare_large(3 * MANY, generator)
    found = bounded_mean(values, (0.0, 10.0))
    weights = np.random.default_rng(1).standard_exponential((1000, len(values) + 1))
    for end, quantile, bound in ((0.0, 0.025, found.low), (10.0, 0.975, found.high)):
        means = (weights @ np.append(values, end)) / weights.sum(1)
        assert bound == pytest.approx(np.quantile(means, quantile), abs=0.1 * (found.high - found.low))
