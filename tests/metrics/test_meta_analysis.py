"""Random-effects meta-analysis: closed forms, statsmodels' figures, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from stresslens.metrics.meta_analysis import pooled_effects

sets = st.integers(3, 9).flatmap(lambda k: arrays(np.float64, k, elements=st.floats(-0.3, 0.3)))


def test_the_figures_are_those_of_statsmodels() -> None:
    """combine_effects(values, variances, method_re="iterated") of statsmodels 0.15.0 gave these: tau2, q, its
    p, and i2."""
    values = np.array([0.61, 0.30, 0.72, -0.10, 0.44, 0.95])
    found = pooled_effects(values, np.array([0.04, 0.01, 0.09, 0.0225, 0.05, 0.12]))
    assert found.tau2 == pytest.approx(0.0808709244, rel=1e-8)
    assert found.q == pytest.approx(15.3474083924, rel=1e-8)
    assert found.q_p == pytest.approx(0.0089766173, rel=1e-8)
    assert found.i2 == pytest.approx(0.6742120968, rel=1e-8)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert [found.mean - found.margin(), found.mean + found.margin()] == pytest.approx([low, high])
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.slow
@given(sets, st.floats(1e-4, 0.1))
def test_equal_errors_give_the_plain_t_interval_where_the_sets_differ_more_than_chance(
    values: np.ndarray, error: float
) -> None:
    """Then τ² is the variance less that of an error, and the interval is Student's."""
    k, spread = len(values), values.var(ddof=1)
    found = pooled_effects(values, np.full(k, error**2))
    assert found.mean == pytest.approx(values.mean(), abs=1e-9)
    assert found.tau2 == pytest.approx(max(0.0, spread - error**2), abs=1e-9 + 1e-6 * spread)
    half = stats.t.ppf(0.975, k - 1) * np.sqrt(max(spread, error**2) / k)
    assert found.margin() == pytest.approx(half, rel=1e-4)


@given(sets)
def test_estimates_are_drawn_to_the_mean_and_not_beyond(values: np.ndarray) -> None:
    found = pooled_effects(values, np.linspace(0.001, 0.02, len(values)))
    away, before = found.shrunken - found.mean, values - found.mean
    assert (np.abs(away) <= np.abs(before) + 1e-12).all()
    assert (away * before >= -1e-15).all()
    assert 0 <= found.i2 < 1
    assert found.new_margin() >= found.margin() - 1e-12


def test_several_analyses_at_once_are_those_of_each() -> None:
    random = np.random.default_rng(0)
    values, variances = random.normal(0, 0.1, (5, 4)), random.uniform(0.001, 0.01, (5, 4))
    both = pooled_effects(values, variances)
    for k in range(5):
        one = pooled_effects(values[k], variances[k])
        for name in ("mean", "tau2", "error2", "p", "q", "i2"):
            assert getattr(both, name)[k] == pytest.approx(float(getattr(one, name)), rel=1e-9)
        assert both.new_margin()[k] == pytest.approx(float(one.new_margin()), rel=1e-9)


def test_equal_values_without_any_error_are_told() -> None:
    found = pooled_effects(np.full(4, 0.1), np.zeros(4))
    assert found.tau2 == 0
    assert found.p < 1e-9
    assert pooled_effects(np.zeros(4), np.zeros(4)).p == 1


@pytest.mark.parametrize("between", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [3, 5, 10])
def test_the_intervals_cover(k: int, between: float) -> None:
    random = np.random.default_rng(k)
    errors = np.linspace(1, 2, k)
    truth = between * random.standard_normal((2000, k + 1))
    found = pooled_effects(
        truth[:, :k] + errors * random.standard_normal((2000, k)), np.broadcast_to(errors**2, (2000, k))
    )
    assert (np.abs(found.mean) <= found.margin()).mean() > 0.935
    assert (np.abs(found.mean - truth[:, k]) <= found.new_margin()).mean() > 0.935
