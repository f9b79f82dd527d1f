"""Slice discovery on arrays: planted slices are found on images that were not looked at, and chance makes
none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stresslens.metrics.slice_discovery import LEAST, SliceSearch, discover_slices


def planted(
    n: int, share: float, seed: int, *, inside: float = 0.2, outside: float = 0.95
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Features of ten classes and a slice across them, which images are right, and which are in the slice."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 2, (10, 12))
    values = centres[random.integers(0, 10, n)] + random.standard_normal((n, 12))
    member = random.random(n) < share
    values[member, 0] += 6
    right = random.random(n) < np.where(member, inside, outside)
    return {"network": values}, right, member


def by_hand(found: SliceSearch, right: np.ndarray, k: int, seed: int = 0) -> tuple[float, float]:
    """The accuracy of a slice and its p, redone from its members."""
    half = np.random.default_rng(seed).permutation(len(right))[len(right) // 2 :]
    inside = np.isin(half, found.slices[k].members)
    table = [[(~right[half[inside]]).sum(), right[half[inside]].sum()]]
    table += [[(~right[half[~inside]]).sum(), right[half[~inside]].sum()]]
    return right[half[inside]].mean(), float(stats.fisher_exact(table, "greater").pvalue)


def test_a_planted_slice_is_found_and_its_figures_are_those_of_its_members() -> None:
    features, right, member = planted(1200, 0.08, 0)
    found = discover_slices(features, right)
    first = found.slices[0]
    accuracy, p = by_hand(found, right, 0)
    assert first.accuracy.value == pytest.approx(accuracy)
    assert first.p == pytest.approx(p)
    assert first.gap.value == pytest.approx(first.accuracy.value - first.rest.value)
    assert first.gap.high < 0
    assert first.p <= first.p_holm <= 0.05
    assert member[first.members].mean() > 0.7
    assert (found.looked, found.tested) == (600, 600)


def test_the_images_that_were_looked_at_are_not_tested() -> None:
    features, right, _ = planted(1200, 0.08, 0)
    looked = np.random.default_rng(0).permutation(1200)[:600]
    for each in discover_slices(features, right).slices:
        assert not np.isin(each.members, looked).any()
        assert len(each.members) == each.accuracy.n == len(set(each.members.tolist()))


def test_members_are_ordered_by_their_distance_to_the_centre() -> None:
    features, right, _ = planted(1200, 0.08, 0)
    first = discover_slices(features, right).slices[0]
    values = features["network"][first.members]
    distance = np.linalg.norm(values - values.mean(0), axis=1)
    half = len(distance) // 2
    assert distance[:half].mean() < distance[half:].mean()


def test_planted_slices_are_found_often() -> None:
    """Of 20 draws of 600 images, a tenth of them in a slice of 50 % accuracy."""
    hits = 0
    for seed in range(20):
        features, right, member = planted(600, 0.1, seed, inside=0.5)
        found = discover_slices(features, right, seed=seed)
        hits += any(member[each.members].mean() > 0.5 for each in found.slices)
    assert hits >= 15


@pytest.mark.slow
def test_chance_makes_no_slice() -> None:
    """Correctness shuffled over the images: any slice is a false alarm; at most 5 % of 200 draws."""
    alarms = 0
    for seed in range(200):
        features, right, _ = planted(100, 0.1, seed)
        random = np.random.default_rng(seed)
        both = {**features, "pictures": random.standard_normal((100, 3))}
        alarms += bool(discover_slices(both, random.permutation(right), seed=seed).slices)
    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


@pytest.mark.parametrize("answer", [True, False])
def test_without_errors_or_without_successes_there_is_none(answer: bool) -> None:
    features, _, _ = planted(LEAST, 0.1, 0)
    found = discover_slices(features, np.full(LEAST, answer))
    assert found.slices == ()
    assert found.candidates == 0


def test_features_that_do_not_vary() -> None:
    right = np.arange(80) % 3 > 0
    found = discover_slices({"network": np.ones((80, 4))}, right)
    assert found.slices == ()
    assert found.clusters == 2


def test_a_slice_of_two_kinds_of_features_is_listed_once() -> None:
    features, right, _ = planted(1200, 0.08, 0)
    both = {"network": features["network"], "pictures": features["network"] * 2}
    assert len(discover_slices(both, right).slices) == len(discover_slices(features, right).slices)


def test_the_gap_that_would_have_been_found_is_found_in_four_of_five_cases() -> None:
    """Fisher's test at the level of the strictest step, of a slice of the stated size and gap."""
    features, right, _ = planted(1000, 0.0, 3, outside=0.9)
    found = discover_slices(features, right)
    rest, random = found.tested - found.size, np.random.default_rng(0)
    overall = 0.9
    wrong_inside = random.binomial(found.size, min(1, 1 - overall + found.gap), 4000)
    wrong_outside = random.binomial(rest, 1 - overall, 4000)
    p = stats.hypergeom.sf(wrong_inside - 1, found.tested, wrong_inside + wrong_outside, found.size)
    power = (p <= 0.05 / found.candidates).mean()
    assert 0.65 < power < 0.95
    assert math.isfinite(found.gap)
