from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from stresslens.metrics.intervals import wilson
from stresslens.metrics.random_effects import (
    Goal,
    crossed,
    images_needed,
    moments,
    paired_random_effects,
    plan,
    proportion,
)

tables = st.tuples(st.integers(2, 6), st.integers(2, 30)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.sampled_from([-1.0, 0.0, 1.0]))
)


def disagreeing(seeds: int, images: int, only_a: int, only_b: int) -> np.ndarray:
    """The same few images differ in every seed."""
    delta = np.zeros((seeds, images))
    delta[:, :only_a], delta[:, only_a : only_a + only_b] = -1, 1
    return delta


@given(tables)
def test_mean_squares_are_the_two_way_analysis_of_variances(values: np.ndarray) -> None:
    seeds, images = values.shape
    mean = values.mean()
    of_seeds = sum(images * (row.mean() - mean) ** 2 for row in values) / (seeds - 1)
    of_images = sum(seeds * (column.mean() - mean) ** 2 for column in values.T) / (images - 1)
    rest = sum(
        (values[s, i] - values[s].mean() - values[:, i].mean() + mean) ** 2
        for s in range(seeds)
        for i in range(images)
    ) / ((seeds - 1) * (images - 1))
    table = crossed(moments(values))
    assert table.mean == pytest.approx(mean)
    assert (table.ms_seeds, table.ms_images, table.ms_rest) == pytest.approx(
        (of_seeds, of_images, rest), abs=1e-9
    )


@given(tables)
def test_never_narrower_than_t_over_the_seeds(values: np.ndarray) -> None:
    seeds, images = values.shape
    half = stats.t.ppf(0.975, seeds - 1) * values.mean(1).std(ddof=1) / math.sqrt(seeds)
    assert crossed(moments(values)).margin(0.05) >= half - 1e-9
    assert (
        paired_random_effects(moments(values)).margin(0.05) >= half * math.sqrt(images / (images + 2)) - 1e-9
    )


def test_two_seeds_that_happen_to_agree_are_not_certain() -> None:
    delta = np.zeros((2, 360))
    delta[0, :3], delta[1, 3:6] = 1, 1  # 3 images each, not the same
    table = paired_random_effects(moments(delta))
    assert table.ms_seeds == pytest.approx(0.25 / (2 * 360))  # as if half an answer of one seed were another
    assert table.margin(0.05) > 0.008
    assert table.p > 0.04


@given(tables, st.floats(1e-6, 0.9))
def test_the_interval_at_p_ends_at_zero(values: np.ndarray, level: float) -> None:
    table = paired_random_effects(moments(values))
    if table.mean == 0:
        assert table.p == pytest.approx(1)
    elif table.p > 1e-14:
        assert table.margin(table.p) == pytest.approx(abs(table.mean), rel=1e-6)
        assert (table.p < level) == (abs(table.mean) > table.margin(level)) or abs(table.p - level) < 1e-9


@given(tables, st.randoms(use_true_random=False))
def test_sides_change_the_sign_and_order_changes_nothing(values: np.ndarray, random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation  # type: ignore[attr-defined]
    table = paired_random_effects(moments(values))
    flipped, shuffled = (
        paired_random_effects(moments(-values)),
        paired_random_effects(moments(values[order(len(values))][:, order(values.shape[1])])),
    )
    assert flipped.mean == pytest.approx(-table.mean)
    assert shuffled.mean == pytest.approx(table.mean)
    for other in (flipped, shuffled):
        assert (other.margin(0.05), other.p) == pytest.approx(
            (table.margin(0.05), table.p), rel=1e-6, abs=1e-9
        )


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (3, 12), (40, 60)])
def test_seeds_that_answer_alike_are_bonett_and_price(seeds: int, only_a: int, only_b: int) -> None:
    n = 360
    low, high = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = stats.norm.ppf(0.975) * math.sqrt((low + high - (high - low) ** 2) / (n + 2))
    table = paired_random_effects(moments(disagreeing(seeds, n, only_a, only_b)))
    assert table.mean == pytest.approx((only_b - only_a) / (n + 2))
    half_an_answer = seeds > 1 and stats.t.ppf(0.975, seeds - 1) * 0.5 / (seeds * n)
    assert table.margin(0.05) == pytest.approx(math.hypot(half, half_an_answer), rel=0.005)


def test_without_image_effects_it_is_students_t_over_seeds() -> None:
    values = np.repeat(np.array([[0.1], [0.3], [0.4], [0.2]]), 50, axis=1)
    low, high = stats.t.interval(0.95, 3, values[:, 0].mean(), stats.sem(values[:, 0]))
    table = crossed(moments(values))
    assert (table.mean - table.margin(0.05), table.mean + table.margin(0.05)) == pytest.approx((low, high))
    assert table.p == pytest.approx(stats.ttest_1samp(values[:, 0], 0).pvalue, rel=1e-6)


def test_many_tables_at_once_are_each_alone() -> None:
    values = np.random.default_rng(0).integers(-1, 2, (3, 2, 4, 50)).astype(np.float32)
    together = paired_random_effects(moments(values))
    for i, j in np.ndindex(3, 2):
        alone = paired_random_effects(moments(values[i, j]))
        assert (together.mean[i, j], together.p[i, j], together.margin(0.1)[i, j]) == pytest.approx(
            (float(alone.mean), float(alone.p), float(alone.margin(0.1)))
        )


@pytest.mark.parametrize("right", [0, 1, 180, 359, 360])
def test_one_seeds_accuracy_is_wilsons(right: int) -> None:
    table = np.zeros((1, 360))
    table[0, :right] = 1
    found, expected = proportion(table), wilson(right, 360)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert (found.unit, found.n, found.method) == ("images", 360, "Wilson")


def test_accuracy_knows_how_much_seeds_agree() -> None:
    random = np.random.default_rng(1)
    alike = np.repeat((random.random((1, 1000)) < 0.9).astype(float), 5, axis=0)
    apart = (random.random((5, 1000)) < 0.9).astype(float)
    same, own = proportion(alike), proportion(apart)
    one = wilson(int(alike[0].sum()), 1000)
    assert same.high - same.low == pytest.approx(one.high - one.low, rel=0.02)
    assert own.high - own.low < 0.8 * (same.high - same.low)
    assert own.unit == "both"


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("accuracy", "deviation", "seeds"),
    [(0.98, 0.45, 5), (0.98, 0.9, 5), (0.9, 0.9, 5), (0.98, 0.9, 10), (0.98, 0.45, 3), (0.98, 0.0, 5)],
)
def test_a_recipes_accuracy_is_covered_where_seeds_vary_below_the_ceiling(
    accuracy: float, deviation: float, seeds: int
) -> None:
    random, held = np.random.default_rng(4), []
    ease = stats.norm.ppf(accuracy) * np.sqrt(1 + deviation**2)
    for _ in range(400):
        images, own = random.normal(size=(1, 1000)) * 0.5, random.normal(size=(seeds, 1000)) * 0.75**0.5
        right = ease + images + own + deviation * random.normal(size=(seeds, 1)) > 0
        found = proportion(right.astype(np.float32))
        held.append((found.low <= accuracy <= found.high, found.high - found.low))
    covered, width = np.mean(held, axis=0)
    assert covered > 0.905  # about 0.935 in benchmarks/verdicts.py; a standard error is 0.013
    if deviation == 0:
        assert width < 0.013  # no wider where seeds are alike


@given(st.integers(2, 5), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_accuracy_lies_in_its_interval_inside_zero_and_one(seeds: int, images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    found = proportion((random.random((seeds, images)) < random.random()).astype(float))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_images_needed_by_one_seed_is_the_textbooks_formula() -> None:
    table = paired_random_effects(moments(disagreeing(1, 360, 10, 30)))
    variance = float(table.ms_images)
    expected = variance * ((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) / 0.01) ** 2
    assert images_needed(table, Goal(0.01), 1) == pytest.approx(expected, rel=0.002)


@given(st.integers(0, 2**32 - 1), st.floats(0.002, 0.3))
def test_a_smaller_difference_and_fewer_seeds_never_need_fewer_images(seed: int, difference: float) -> None:
    random = np.random.default_rng(seed)
    shares = 0.6 + 0.1 * random.standard_normal((2, 4, 1)) + 0.3 * random.random((1, 1, 60))
    right = (random.random((2, 4, 60)) < shares).astype(float)
    table = paired_random_effects(moments(right[1] - right[0]))
    assert images_needed(table, Goal(difference), 3) >= images_needed(table, Goal(2 * difference), 3)
    assert images_needed(table, Goal(difference), 3) >= images_needed(table, Goal(difference), 6)
    seeds, images = plan(table, difference)
    assert seeds >= table.seeds
    if images is None:
        assert images_needed(table, Goal(difference), seeds) <= table.images
    elif math.isfinite(images):
        assert images_needed(table, Goal(difference), seeds) == images > table.images


def test_where_only_seeds_vary_images_do_not_help() -> None:
    values = np.repeat(np.array([[-1.0], [0.0], [1.0]]), 100, axis=1)
    table = crossed(moments(values))
    assert images_needed(table, Goal(0.5), 3) == math.inf
    assert plan(table, 0.01)[1] == math.inf
    assert plan(table, 2.0) == (
        5,
        None,
    )  # t(4) + z = 2.78 + 0.84, times 1 / √5, is below 2 for the first time
