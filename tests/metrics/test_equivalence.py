"""One-sided tests against a margin: closed forms, scipy's t tests, and what must hold of any interval."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stresslens.metrics.equivalence import Ends, p_above, p_below, p_within, room, widened
from stresslens.metrics.intervals import Floats
from stresslens.metrics.random_effects import moments, paired_random_effects

values = st.floats(-0.4, 0.4)
errors = st.floats(0.001, 0.2)
margins = st.floats(0.001, 0.2)


def normal(value: float, error: float) -> Ends:
    """The ends of a normal interval."""

    def ends(level: Floats) -> tuple[Floats, Floats]:
        half = stats.norm.ppf(0.5 + np.asarray(level) / 2) * error
        return value - half, value + half

    return ends


@given(values, errors, values)
def test_the_one_sided_p_of_a_normal_interval_is_that_of_the_z_test(
    value: float, error: float, bound: float
) -> None:
    above, below = stats.norm.sf((value - bound) / error), stats.norm.cdf((value - bound) / error)
    for found, expected in (
        (p_above(normal(value, error), bound), above),
        (p_below(normal(value, error), bound), below),
    ):
        if expected < 0.499:
            assert found == pytest.approx(max(expected, 1e-15), rel=1e-6)
        elif expected > 0.501:
            assert found == 1.0


@given(values, errors, margins)
def test_sameness_is_shown_exactly_where_the_90_percent_interval_lies_inside(
    value: float, error: float, margin: float
) -> None:
    low, high = normal(value, error)(np.float64(0.9))
    p = p_within(normal(value, error), margin)
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (-margin < low and high < margin)
    assert p >= p_above(normal(value, error), -margin)
    assert p_within(normal(value, error), 1.1 * margin) <= p
    assert p_within(normal(-value, error), margin) == pytest.approx(float(p), rel=1e-9)


def test_over_many_images_it_is_the_two_one_sided_paired_t_tests() -> None:
    """Schuirmann's, by scipy; the pseudo-images of the interval hardly count among 200,000."""
    random = np.random.default_rng(0)
    delta = random.choice([-1.0, 0.0, 1.0], p=[0.05, 0.894, 0.056], size=(1, 200_000))
    table = paired_random_effects(moments(delta))
    ends: Ends = lambda level: (table.mean - table.margin(1 - level), table.mean + table.margin(1 - level))  # noqa: E731
    for margin in (0.0065, 0.007, 0.0075):
        expected = max(
            stats.ttest_1samp(delta[0], -margin, alternative="greater").pvalue,
            stats.ttest_1samp(delta[0], margin, alternative="less").pvalue,
        )
        assert p_within(ends, margin) == pytest.approx(expected, rel=0.05)


def test_several_intervals_at_once() -> None:
    value = np.array([0.0, 0.01, 0.2])
    ends: Ends = lambda level: (value - 0.05 * (1 + level), value + 0.05 * (1 + level))  # noqa: E731
    found = p_within(ends, 0.1, (3,))
    assert found[0] < 0.05 < found[1] < 0.5
    assert found[2] == 1.0


@pytest.mark.parametrize("n", [300, 600, 2000])
@pytest.mark.parametrize("differ", [0, 1, 3, 10])
def test_room_reaches_the_exact_bound_of_few_images(n: int, differ: int) -> None:
    """Where all images that differ do so in one direction, the upper end is at least Clopper
    and Pearson's."""
    delta = np.zeros((1, n))
    delta[0, :differ] = 1
    table = paired_random_effects(moments(delta))
    for p in (0.05, 0.01):
        exact = stats.beta.ppf(1 - p, differ + 1, n - differ)
        ends = widened(
            lambda level: (table.mean - table.margin(1 - level), table.mean + table.margin(1 - level)), n
        )
        assert ends(np.float64(1 - 2 * p))[1] >= 0.999 * exact
    assert room(n, 0.05) == pytest.approx((stats.norm.ppf(0.95) ** 2 + 2) / 3 / n)
