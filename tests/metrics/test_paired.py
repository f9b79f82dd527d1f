from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stresslens.metrics.paired import holm, mcnemar, resampled, resampled_reach

samples = st.lists(st.floats(-1, 1).map(lambda v: round(v, 3)), min_size=2, max_size=20).map(np.array)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"), [(0, 0, 1), (0, 5, 0.0625), (5, 0, 0.0625), (0, 6, 0.03125), (4, 4, 1)]
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_twice_the_smaller_tail(only_a: int, only_b: int) -> None:
    n, least = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def test_nadeau_and_bengio_by_hand() -> None:
    values = np.array([0.02, 0.04, 0.00, 0.06, 0.03])  # mean 0.03, s² = 0.0005
    error = math.sqrt(0.0005 * (1 / 5 + 1 / 4))
    margin, p = resampled(values, 1 / 4)
    assert margin == pytest.approx(2.7764451 * error)
    assert p == pytest.approx(2 * stats.t.sf(0.03 / error, 4))


@given(samples)
def test_disjoint_samples_are_students_t(values: np.ndarray) -> None:
    margin, p = resampled(values, 0.0)
    if np.ptp(values) == 0:
        assert (margin, p) == (0, 1 if values[0] == 0 else 0)
        return
    expected = stats.ttest_1samp(values, 0)
    assert p == pytest.approx(expected.pvalue)
    assert margin == pytest.approx(expected.confidence_interval().high - values.mean())


@given(samples, st.floats(0.01, 1))
def test_overlapping_training_sets_widen_and_p_agrees(values: np.ndarray, ratio: float) -> None:
    margin, p = resampled(values, ratio)
    assert margin >= resampled(values, 0.0)[0]
    assert (p < 0.05) == (abs(values.mean()) > margin) or abs(p - 0.05) < 1e-9
    assert resampled_reach(values, ratio) >= margin


@given(st.dictionaries(st.integers(), st.floats(0, 1), max_size=8))
def test_holm_against_its_definition(p: dict[int, float]) -> None:
    """The p of the k-th smallest is the largest p(j) · (m - j + 1) over j up to k (Holm 1979)."""
    ordered = sorted(p.values())
    found = holm(p)
    for pair, value in p.items():
        rank = max(k for k, other in enumerate(ordered) if other == value)
        assert found[pair] <= min(1, max(ordered[j] * (len(ordered) - j) for j in range(rank + 1))) + 1e-12
        assert found[pair] >= value
    if p:
        least = min(p, key=lambda pair: p[pair])
        assert found[least] == pytest.approx(min(1, len(p) * p[least]))
