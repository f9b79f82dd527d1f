"""Two samples: the AUROC against scikit-learn, the permutation p, the detectable AUROC, Welch's test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from stresslens.metrics.intervals import difference_of_proportions, wilson
from stresslens.metrics.ranking import cross_validated_auroc
from stresslens.metrics.two_samples import FOLDS, SHRINKAGE, discriminant_test, mean_difference


def samples(n: int, m: int, shift: float, seed: int = 0, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Normal values whose first feature is shifted in the second sample."""
    random = np.random.default_rng(seed)
    values, second = random.standard_normal((n + m, d)), np.repeat([False, True], [n, m])
    values[second, 0] += shift
    return values, second


def test_cross_validated_auroc_is_the_mean_of_scikit_learns_and_its_interval_delongs() -> None:
    random = np.random.default_rng(0)
    scores, positive, fold = random.random(300).round(2), random.random(300) < 0.4, np.arange(300) % 3
    found = cross_validated_auroc(scores, positive, fold)
    each = [roc_auc_score(positive[fold == k], scores[fold == k]) for k in range(3)]
    assert found.value == pytest.approx(np.mean(each))
    variance = 0.0
    for k in range(3):
        up, down = (scores[(fold == k) & side] for side in (positive, ~positive))
        wins = (up[:, None] > down).astype(float) + 0.5 * (up[:, None] == down)
        variance += (wins.mean(1).var(ddof=1) / len(up) + wins.mean(0).var(ddof=1) / len(down)) / 9
    slope = found.value * (1 - found.value)
    logit = np.log(found.value / (1 - found.value)) + np.array([-1.96, 1.96]) * np.sqrt(variance) / slope
    assert [found.low, found.high] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-3)


def test_complete_separation_has_an_interval() -> None:
    positive = np.arange(40) % 2 == 1
    found = cross_validated_auroc(positive.astype(float), positive, np.arange(40) // 2 % 4)
    assert found.value == 1
    assert 0.8 < found.low < 1


def test_the_discriminant_is_the_shrunk_one_of_fisher() -> None:
    """The held-out AUROC, redone image by image with a solver of its own."""
    values, second = samples(60, 40, 0.8)
    found = discriminant_test(values, second, permutations=1)
    random = np.random.default_rng(0)
    fold = np.empty(100, int)
    for side in (False, True):
        rows = random.permutation(np.flatnonzero(second == side))
        fold[rows] = np.arange(len(rows)) % FOLDS
    z = (values - values.mean(0)) / values.std(0)
    areas = []
    for k in range(FOLDS):
        train = z[fold != k]
        s = np.cov(train.T, bias=True)
        s = (1 - SHRINKAGE) * s + SHRINKAGE * np.trace(s) / len(s) * np.eye(len(s))
        gap = train[second[fold != k]].mean(0) - train[~second[fold != k]].mean(0)
        areas.append(roc_auc_score(second[fold == k], z[fold == k] @ np.linalg.inv(s) @ gap))
    assert found.auroc.value == pytest.approx(np.mean(areas))


def test_p_counts_the_permutations_that_reach_the_auroc() -> None:
    found = discriminant_test(*samples(50, 50, 0.4), permutations=199)
    assert found.p == (1 + (found.chance >= found.auroc.value - 1e-12).sum()) / 200
    assert found.chance.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_samples_alike_are_seldom_told_apart() -> None:
    """Also of unequal sizes and with heavy tails, p is at most 0.05 in about 5 % of 400 draws."""
    alarms = 0
    for seed in range(400):
        random = np.random.default_rng(seed)
        values = random.standard_t(2, (75, 8))
        alarms += discriminant_test(values, np.arange(75) < 25, seed=seed, permutations=99).p <= 0.05
    assert alarms <= stats.binom.ppf(0.999, 400, 0.05)
    assert alarms >= stats.binom.ppf(0.001, 400, 0.05), "a test that never alarms finds nothing"


@pytest.mark.slow
def test_the_detectable_difference_is_found_in_four_of_five_cases() -> None:
    """A shift whose mean AUROC is the detectable one."""
    found = [
        discriminant_test(*samples(100, 100, 0.55, seed), seed=seed, permutations=99) for seed in range(150)
    ]
    detectable = np.median([each.detectable(0.05) for each in found])
    mean = np.mean([each.auroc.value for each in found])
    power = np.mean([each.p <= 0.05 for each in found])
    at = stats.norm.cdf(
        stats.norm.ppf(power) + (detectable - mean) / np.median([each.spread for each in found])
    )
    assert 0.7 < at < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.6, 1.2])
def test_the_interval_covers_the_expected_auroc(shift: float) -> None:
    """In 95 % of 200 draws, or more; the interval that takes the classifiers as given covers less."""
    found = [
        discriminant_test(*samples(100, 60, shift, seed, d=20), seed=seed, permutations=60).auroc
        for seed in range(200)
    ]
    expected = np.mean([each.value for each in found])
    covered = sum(each.low <= expected <= each.high for each in found)
    assert covered >= stats.binom.ppf(0.001, 200, 0.95)


def test_equal_features_are_no_difference() -> None:
    found = discriminant_test(np.ones((40, 3)), np.arange(40) < 20, permutations=19)
    assert (found.auroc.value, found.p) == (0.5, 1)


def test_welch_is_scipys_and_cohens_d_by_hand() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(0, 1, 40), random.normal(0.5, 2, 25)
    found, expected = mean_difference(first, second), stats.ttest_ind(second, first, equal_var=False)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high))
    pooled = np.sqrt((39 * first.var(ddof=1) + 24 * second.var(ddof=1)) / 63)
    assert found.standardised == pytest.approx((second.mean() - first.mean()) / pooled)


@pytest.mark.parametrize(("other", "p", "d"), [(3.0, 1.0, 0.0), (4.0, 0.0, np.inf)])
def test_values_without_a_spread(other: float, p: float, d: float) -> None:
    found = mean_difference(np.full(9, 3.0), np.full(7, other))
    assert (found.p, found.standardised, found.difference.low) == (p, d, other - 3)


def test_newcombes_interval_is_that_of_his_table() -> None:
    """Newcombe 1998, table II: 56/70 - 48/80 = 0.2, method 10: 0.0524 to 0.3339."""
    found = difference_of_proportions(wilson(48, 80), wilson(56, 70))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)
