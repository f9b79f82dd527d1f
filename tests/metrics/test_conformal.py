"""Conformal sets: closed forms, slow versions, MAPIE's and TorchCP's values, and whether they cover."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stresslens.metrics.conformal import (
    CALIBRATION_DRAWS,
    IMAGE_DRAWS,
    SET_SCORES,
    USUAL_PENALTY,
    CalibrationScores,
    SetRule,
    SetScore,
    calibrated_sets,
    conformal_quantile,
    expected_coverage,
    fewest_calibration_images,
    row_keys,
    uniform_of,
)
from stresslens.metrics.set_coverage import set_scores

QUICK = settings(max_examples=40, deadline=None)
Case = tuple[NDArray[np.float64], NDArray[np.int64]]


def drawn(n: int, k: int, seed: int, *, sharp: float = 2.0, rare: float = 0.0) -> Case:
    """Probabilities (n, k), and labels that they are right about; with `rare` the last class is rarer."""
    random = np.random.default_rng(seed)
    logits = sharp * random.normal(size=(n, k))
    logits[:, -1] -= rare
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (random.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=k - 1)
    return p, labels


@st.composite
def cases(draw: st.DrawFn) -> Case:
    p, labels = drawn(draw(st.integers(1, 60)), draw(st.integers(2, 6)), draw(st.integers(0, 10_000)))
    return np.round(p, 2) / np.round(p, 2).sum(1, keepdims=True), labels


rules = st.builds(SetRule, st.sampled_from(SET_SCORES), st.booleans(), st.booleans())


@QUICK
@given(st.lists(st.integers(0, 9), max_size=40), st.floats(0.01, 0.99))
def test_the_quantile_is_the_smallest_score_that_enough_scores_do_not_exceed(
    values: list[int], coverage: float
) -> None:
    scores, n = np.array(values, float), len(values)
    found = conformal_quantile(scores, coverage)
    enough = [s for s in sorted(values) if (scores <= s).sum() >= (n + 1) * coverage - 1e-9]
    assert found == (enough[0] if enough else math.inf)


@pytest.mark.parametrize(
    ("n", "coverage", "place"),
    [(9, 0.9, 9), (8, 0.9, None), (19, 0.95, 19), (99, 0.95, 95), (100, 0.95, 96), (999, 0.999, 999)],
)
def test_the_place_of_the_quantile(n: int, coverage: float, place: int | None) -> None:
    """MAPIE 1.6 takes the same one: numpy's quantile of ⌈(n + 1) · coverage⌉ / n by the method "lower",
    which its documentation calls the ⌈(n + 1) · coverage⌉-th smallest score."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert conformal_quantile(scores, coverage) == (math.inf if place is None else place)
    if place is not None:
        level = min(1.0, round((n + 1) * coverage, 9) / n)
        assert place == np.quantile(scores, level, method="inverted_cdf")
    assert (n >= fewest_calibration_images(coverage)) == (place is not None)


@QUICK
@given(cases(), rules, st.floats(0.05, 0.95))
def test_sets_hold_the_classes_whose_score_is_at_most_the_threshold(
    case: Case, rule: SetRule, coverage: float
) -> None:
    """Against scores from loops over the classes."""
    p, labels = case
    kept = CalibrationScores.of(p, labels)
    sets = calibrated_sets(kept, coverage, rule, p.shape[1])
    found = sets.of(p, u := uniform_of(np.arange(len(p)), IMAGE_DRAWS))
    for i, row in enumerate(p):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        for place, k in enumerate(order):
            score = 1 - row[k]
            if rule.score != "lac":
                score = sum(row[j] for j in order[:place]) + row[k] * (u[i] if rule.randomised else 1)
            if rule.score == "raps":
                assert sets.rule.penalty is not None
                assert sets.rule.rank is not None
                score += sets.rule.penalty * max(0, place + 1 - sets.rule.rank)
            if abs(score - sets.thresholds[k]) > 1e-9:
                assert found[i, k] == (score < sets.thresholds[k])


@QUICK
@given(cases(), st.sampled_from(("lac", "aps")), st.booleans())
def test_sets_grow_with_the_coverage(case: Case, score: SetScore, by_class: bool) -> None:
    p, labels = case
    kept, u = CalibrationScores.of(p, labels), uniform_of(np.arange(len(p)), IMAGE_DRAWS)
    rule = SetRule(score, by_class)
    levels = [calibrated_sets(kept, c, rule, p.shape[1]).of(p, u) for c in (0.1, 0.5, 0.8, 0.95, 0.999)]
    for smaller, larger in pairwise(levels):
        assert (smaller <= larger).all()


@pytest.mark.parametrize("rule", [SetRule(s, c) for s in SET_SCORES for c in (False, True)], ids=str)
def test_sets_cover_new_images(rule: SetRule) -> None:
    """In the mean over calibration sets the coverage is the wanted one, up to 1/(n + 1) for each threshold;
    by class it holds in the rare class too."""
    coverage, found, rare = 0.8, [], []
    for seed in range(30):
        p, labels = drawn(200, 4, seed, rare=2.0)
        q, truth = drawn(500, 4, 10_000 + seed, rare=2.0)
        sets = calibrated_sets(CalibrationScores.of(p, labels), coverage, rule, 4)
        inside = sets.of(q, uniform_of(np.arange(500) + 1000 * seed, IMAGE_DRAWS))[np.arange(500), truth]
        found.append(inside.mean())
        rare.append(inside[truth == 3].mean())
    error = 3 * np.std(found) / math.sqrt(len(found))
    slack = 0.05 if rule.by_class else 1 / 161
    assert coverage - error < np.mean(found) < coverage + slack + error
    if rule.by_class:
        assert np.mean(rare) > coverage - 3 * np.std(rare) / math.sqrt(len(rare))


def test_the_coverage_of_other_calibration_images_is_a_beta_distribution() -> None:
    from scipy.stats import beta

    low, high = expected_coverage(99, 0.9)
    assert (low, high) == pytest.approx(beta(90, 10).ppf([0.025, 0.975]))
    assert expected_coverage(8, 0.9) == (1.0, 1.0)


@pytest.mark.parametrize("n", [0, 1, 8])
def test_with_too_few_images_every_set_has_every_class(n: int) -> None:
    p, labels = drawn(n, 3, 0)
    for rule in (SetRule(s) for s in SET_SCORES):
        sets = calibrated_sets(CalibrationScores.of(p, labels), 0.9, rule, 3)
        assert sets.unbounded == [0, 1, 2]
        assert sets.of(drawn(5, 3, 1)[0], np.full(5, 0.5)).all()


def test_a_class_that_does_not_calibrate_is_in_every_set() -> None:
    p, labels = drawn(300, 3, 0)
    p, labels = p[labels != 1], labels[labels != 1]
    sets = calibrated_sets(CalibrationScores.of(p, labels), 0.9, SetRule("lac", by_class=True), 3)
    assert sets.unbounded == [1]
    assert sets.n[1] == 0
    assert sets.of(p, np.zeros(len(p)))[:, 1].all()


def test_images_without_an_answer_do_not_calibrate_and_have_the_set_of_all_classes() -> None:
    p, labels = drawn(100, 3, 0)
    masked = p.copy()
    masked[::4] = np.nan
    kept = CalibrationScores.of(masked, labels)
    assert len(kept) == 75
    inside = calibrated_sets(kept, 0.5, SetRule(), 3).of(masked, np.zeros(100))
    assert inside[::4].all()
    assert not inside.all()


def test_raps_chooses_its_parameters_on_images_that_do_not_calibrate() -> None:
    """Another true class of a tuning image changes the parameters, and never the scores that calibrate."""
    p, labels = drawn(1000, 6, 0, sharp=1.0)
    sets = calibrated_sets(CalibrationScores.of(p, labels), 0.9, SetRule("raps"), 6)
    assert sets.n.tolist() == [800] * 6
    given = calibrated_sets(CalibrationScores.of(p, labels), 0.9, SetRule("raps", penalty=0.1, rank=2), 6)
    assert given.n.tolist() == [1000] * 6
    few = calibrated_sets(CalibrationScores.of(p[:20], labels[:20]), 0.9, SetRule("raps"), 6)
    assert (few.rule.penalty, few.n[0]) == (USUAL_PENALTY, 20)


def test_the_draws_are_those_of_the_images_and_not_of_their_places() -> None:
    """With a model that is always sure, APS sets cover as their random numbers say: the mean over
    calibrations of few images is the wanted coverage only if each has numbers of its own."""
    covered = []
    for seed in range(300):
        sure = 1 - np.random.default_rng(seed).random((40, 1)) * 1e-9
        p = np.concatenate([sure, 1 - sure], 1)
        sets = calibrated_sets(CalibrationScores.of(p, np.zeros(40, int)), 0.8, SetRule("aps"), 2)
        covered.append(min(1.0, sets.thresholds[0]))
    assert np.mean(covered) == pytest.approx(33 / 41, abs=3 * np.std(covered) / math.sqrt(300))
    assert np.std(covered) > 0.03
    keys = row_keys(np.full((5, 2), 0.5))
    assert len(set(keys.tolist())) == 5


def test_the_draws_of_calibration_and_of_images_are_independent_and_repeat() -> None:
    index = np.arange(5000)
    first, second = (uniform_of(index, seed) for seed in (CALIBRATION_DRAWS, IMAGE_DRAWS))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert np.array_equal(second, uniform_of(index, IMAGE_DRAWS))
    assert np.array_equal(second[:7], uniform_of(index[:7], IMAGE_DRAWS))
    assert 0 <= first.min() <= first.max() < 1


REFERENCE: dict[str, Any] = {
    "p": [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0.5, 0.4, 0.1], [0.05, 0.15, 0.8]],
    "labels": [0, 2, 1, 0, 2],
    "image": [[0.45, 0.35, 0.2]],
}


def test_sets_of_a_case_by_hand() -> None:
    """LAC: scores .3 .7 .7 .5 .2; the 4th of 5 at 60 % is .7, so classes from .3 on. APS without draws:
    .7 .9 1.0 (after a tie, class 0 ranks first) .5 .8; the 4th is .9, so classes up to .9 in all."""
    p, labels = np.array(REFERENCE["p"]), np.array(REFERENCE["labels"])
    kept, image = CalibrationScores.of(p, labels), np.array(REFERENCE["image"])
    lac = calibrated_sets(kept, 0.6, SetRule(), 3)
    assert lac.thresholds[0] == pytest.approx(0.7)
    assert lac.of(image, np.zeros(1)).tolist() == [[True, True, False]]
    aps = calibrated_sets(kept, 0.6, SetRule("aps", randomised=False), 3)
    assert aps.thresholds[0] == pytest.approx(0.9)
    assert aps.of(image, np.zeros(1)).tolist() == [[True, True, False]]


def test_scores_of_sets() -> None:
    inside = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)
    found = set_scores(inside, np.array([0, 2, 1, 1]))
    assert found.coverage.value == 0.5
    assert found.size.value == 1.5
    assert found.sizes == {0: 1, 1: 1, 2: 1, 3: 1}
    assert found.empty == 1
    assert [each.value for each in found.by_class] == [1.0, 0.5, 0.0]
    assert found.worst_class == 2
    assert {size: each.value for size, each in found.by_size.items()} == {"0": 0, "1": 1, "2": 0, "3": 1}
    only = set_scores(inside[:1], np.array([0]))
    assert only.by_class[1].n == 0
    assert only.worst_class == 0
