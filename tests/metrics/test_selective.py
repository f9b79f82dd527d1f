"""Thresholds with a guarantee: closed forms, how often the guarantee fails, and small numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from stresslens.metrics.selective import (
    fewest_of_class,
    recall_threshold,
    selective_threshold,
)

QUICK = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize(("risk", "fewest"), [(0.01, 299), (0.05, 59), (0.1, 29)])
def test_without_errors_it_takes_as_many_images_as_the_rule_of_three_says(risk: float, fewest: int) -> None:
    confidence = np.random.default_rng(0).random(fewest)
    assert (1 - risk) ** fewest <= 0.05 < (1 - risk) ** (fewest - 1)
    found = selective_threshold(confidence, np.ones(fewest, bool), risk)
    assert (found.answered, found.errors, found.threshold) == (fewest, 0, -math.inf)
    short = selective_threshold(confidence[1:], np.ones(fewest - 1, bool), risk)
    assert not short.holds
    assert short.threshold == math.inf
    assert short.needed == fewest


@QUICK
@given(st.integers(0, 400), st.integers(0, 10_000), st.sampled_from([0.02, 0.1, 0.3]), st.booleans())
def test_what_holds_is_shown_by_the_binomial_test(n: int, seed: int, risk: float, ties: bool) -> None:
    random = np.random.default_rng(seed)
    confidence = random.random(n).round(1 if ties else 9)
    right = random.random(n) < 0.5 + 0.5 * confidence
    found = selective_threshold(confidence, right, risk)
    above = confidence > found.threshold
    assert found.answered == above.sum()
    assert found.errors == (~right[above]).sum()
    if found.holds:
        assert binom.cdf(found.errors, found.answered, risk) <= 0.05


def test_the_error_rate_exceeds_what_was_asked_for_in_at_most_a_twentieth_of_draws() -> None:
    """Of a confidence c a share 0.6 (1 - c)² is wrong, so above a threshold t a share 0.2 (1 - t)²."""
    exceeded, answered, draws = 0, [], 400
    for seed in range(draws):
        random = np.random.default_rng(seed)
        confidence = random.random(2000)
        right = random.random(2000) > 0.6 * (1 - confidence) ** 2
        found = selective_threshold(confidence, right, 0.05)
        t = min(1.0, max(0.0, found.threshold))
        exceeded += 0.2 * (1 - t) ** 2 > 0.05
        answered.append(1 - t)
    assert exceeded <= binom(draws, 0.05).ppf(0.999)
    assert 0.3 < np.mean(answered) < 0.5, "of the half that could be answered"


def test_errors_among_the_surest_images_cannot_be_helped_by_more_images() -> None:
    random = np.random.default_rng(0)
    found = selective_threshold(random.random(500), random.random(500) > 0.3, 0.01)
    assert not found.holds
    assert found.needed is None
    some = selective_threshold(random.random(250), np.arange(250) > 0, 0.01)
    assert some.needed is not None
    assert 299 < some.needed < 5000, "as if one more were wrong: 2 of 251"
    assert selective_threshold(np.zeros(0), np.zeros(0, bool), 0.01).needed == 299


def test_more_images_as_many_as_it_said_hold() -> None:
    """Images repeated until there are as many as it takes: the same shares."""
    confidence = np.linspace(0, 1, 200)
    right = np.ones(200, bool)
    right[[5, 190]] = False
    found = selective_threshold(confidence, right, 0.02)
    assert found.needed is not None
    times = math.ceil(found.needed / 200) + 1
    assert selective_threshold(np.tile(confidence, times), np.tile(right, times), 0.02).holds


@pytest.mark.parametrize(("recall", "fewest"), [(0.9, 29), (0.95, 59), (0.99, 299)])
def test_a_recall_needs_so_many_images_of_its_class(recall: float, fewest: int) -> None:
    scores = np.random.default_rng(0).random(fewest)
    assert fewest_of_class(recall) == fewest
    found = recall_threshold(scores, recall)
    assert found.threshold == scores.min()
    assert found.missed == 0
    assert not recall_threshold(scores[1:], recall).holds


@QUICK
@given(st.integers(0, 300), st.sampled_from([0.5, 0.8, 0.95]), st.integers(0, 10_000))
def test_a_threshold_for_a_recall_is_an_order_statistic(n: int, recall: float, seed: int) -> None:
    scores = np.random.default_rng(seed).random(n)
    found = recall_threshold(scores, recall)
    if not found.holds:
        assert n < fewest_of_class(recall)
        return
    assert found.threshold <= found.usual <= found.high
    k = int((scores <= found.threshold).sum())
    assert binom.sf(k - 1, n, 1 - recall) >= 0.95
    assert k == n or binom.sf(k, n, 1 - recall) < 0.95
    assert (scores >= found.usual).mean() >= recall - 1e-9


def test_the_recall_falls_short_in_at_most_a_twentieth_of_draws() -> None:
    """Of scores that are uniform on [0, 1], a share 1 - t reaches t."""
    draws, short, between = 1000, 0, 0
    for seed in range(draws):
        found = recall_threshold(np.random.default_rng(seed).random(200), 0.9)
        short += 1 - found.threshold < 0.9
        between += found.threshold <= 0.1 <= found.high
    assert short <= binom(draws, 0.05).ppf(0.999)
    assert between >= binom(draws, 0.9).ppf(0.001)
