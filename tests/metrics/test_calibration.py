"""Calibration against scikit-learn, slow obvious versions and known answers; and whether its
intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn

from stresslens.core.types import Estimate
from stresslens.metrics import calibration
from stresslens.metrics.classification import cross_entropy, log_softmax

QUICK = settings(max_examples=40, deadline=None)
Case = tuple[NDArray[np.float64], NDArray[np.int64]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Logits (N, K), rounded so that some tie, and labels (N,)."""
    n, k = draw(st.integers(1, 60)), draw(st.integers(2, 7))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    logits = generator.normal(size=(n, k)) * 3
    labels = generator.integers(0, k, size=n)
    logits[np.arange(n), labels] += draw(st.sampled_from([-2, 0, 2, 30]))
    return np.round(logits, draw(st.sampled_from([0, 1, 9]))), labels


def probabilities_of(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(log_softmax(logits))


def drawn_from(probabilities: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Labels that the probabilities are right about."""
    return (
        (generator.random((len(probabilities), 1)) > probabilities.cumsum(1))
        .sum(1)
        .clip(max=probabilities.shape[1] - 1)
    )


@QUICK
@given(cases())
def test_brier(case: Case) -> None:
    p, labels = probabilities_of(case[0]), case[1]
    found = calibration.brier(p, labels)
    assert found.value == pytest.approx(np.square(p - np.eye(p.shape[1])[labels]).sum(1).mean(), abs=1e-12)
    assert -1e-12 <= found.low <= found.value + 1e-12 <= found.high + 2e-12 <= 2 + 3e-12
    if p.shape[1] == 2:
        assert found.value == pytest.approx(
            2 * sklearn.brier_score_loss(labels, p[:, 1], pos_label=1), abs=1e-12
        )


def slow_ece(p: NDArray[np.float64], labels: NDArray[np.int64], bins: int) -> float:
    total = 0.0
    for k in range(bins):
        rows = [row for row, label in zip(p, labels, strict=True) if k < math.ceil(row.max() * bins) <= k + 1]
        right = [
            row.argmax() == label
            for row, label in zip(p, labels, strict=True)
            if k < math.ceil(row.max() * bins) <= k + 1
        ]
        if rows:
            total += len(rows) / len(p) * abs(np.mean(right) - np.mean([row.max() for row in rows]))
    return total


@QUICK
@given(cases(), st.integers(1, 20))
def test_ece_and_its_bins(case: Case, bins: int) -> None:
    p, labels = probabilities_of(case[0]), case[1]
    found = calibration.ece(p, labels, bins=bins)
    assert found.value == pytest.approx(slow_ece(p, labels, bins), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    curve = calibration.reliability(p, labels, bins=bins)
    assert sum(each.n for each in curve) == len(labels)
    gaps = sum(each.n / len(labels) * abs(each.accuracy.value - each.confidence) for each in curve if each.n)
    assert gaps == pytest.approx(found.value, abs=1e-12)
    for each in curve:
        assert each.n == 0 or each.low - 1e-12 <= each.confidence <= each.high + 1e-12


def test_ece_of_closed_forms() -> None:
    sure = np.array([[1.0, 0.0]] * 10)
    assert calibration.ece(sure, np.zeros(10, np.int64)).value == 0
    assert calibration.ece(sure, np.ones(10, np.int64)).value == 1
    half = np.array([[0.8, 0.2]] * 10)
    assert calibration.ece(half, np.array([0] * 8 + [1] * 2)).value == pytest.approx(0)
    assert calibration.ece(half, np.array([0] * 3 + [1] * 7)).value == pytest.approx(0.5)


def test_ece_of_calibrated_probabilities_goes_to_nothing() -> None:
    generator = np.random.default_rng(0)
    values = []
    for n in (100, 1000, 100_000):
        p = probabilities_of(generator.normal(size=(n, 4)) * 2)
        values.append(calibration.ece(p, drawn_from(p, generator)).value)
    assert values[0] > values[1] > values[2]
    assert values[2] < 0.01


@pytest.mark.parametrize("sharpened", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.slow
def test_eces_interval_covers_at_least_as_often_as_it_says(sharpened: float, n: int) -> None:
    generator = np.random.default_rng(1)

    def draw(images: int) -> Case:
        logits = generator.normal(size=(images, 4)) * 2
        return probabilities_of(sharpened * logits), drawn_from(probabilities_of(logits), generator)

    truth = calibration.ece(*draw(400_000)).value if sharpened > 1 else 0.0
    found = [calibration.ece(*draw(n)) for _ in range(400)]
    assert np.mean([e.low <= truth <= e.high for e in found]) > 0.93
    if sharpened > 1:
        assert np.mean([e.high - e.low for e in found]) < 8 * 0.5 / math.sqrt(
            n
        )  # wide, yet it says something


@pytest.mark.slow
@QUICK
@given(st.floats(0.2, 5), st.integers(0, 100))
def test_temperature_is_recovered(temperature: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(4000, 5)) * 2
    labels = drawn_from(probabilities_of(logits), generator)
    found = calibration.fit_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.15)


@pytest.mark.slow
@QUICK
@given(cases())
def test_temperature_is_the_best_there_is_under_its_prior(case: Case) -> None:
    logits, labels = case
    found = calibration.temperature_scaling(logits, labels)
    assert found.used == calibration.fit_temperature(logits, labels)
    if len(labels) < 2:
        assert found.used == 1
        return

    def penalised(temperature: float) -> float:
        likelihood = cross_entropy(logits / temperature, labels).value * len(labels)
        return likelihood + math.log1p((math.log(temperature) / calibration.PRIOR) ** 2)

    for other in np.geomspace(1e-3, 1e3, 80):
        assert penalised(found.fitted.value) <= penalised(other) + 1e-3
    assert 0 < found.fitted.low <= found.fitted.value <= found.fitted.high
    assert np.array_equal((logits / found.used).argmax(1), logits.argmax(1))


def of_temperature(n: int, temperature: float, generator: np.random.Generator) -> Case:
    logits = generator.normal(size=(n, 10)) * 6
    return temperature * logits, drawn_from(probabilities_of(logits), generator)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("temperature", [3260.0, 100.0, 2.0, 0.05, 1e-5])
def test_a_temperature_of_any_size_is_found_with_its_interval(temperature: float) -> None:
    generator = np.random.default_rng(0)
    found = [calibration.temperature_scaling(*of_temperature(400, temperature, generator)) for _ in range(40)]
    assert [each.helps for each in found] == [True] * 40
    assert np.median([each.used for each in found]) == pytest.approx(temperature, rel=0.1)
    assert np.mean([each.fitted.low <= temperature <= each.fitted.high for each in found]) >= 0.85


def over_sure(n: int, scale: float, generator: np.random.Generator) -> Case:
    """Ten classes, 98.3 % right."""
    labels = generator.integers(10, size=n)
    logits = generator.normal(size=(n, 10))
    logits[np.arange(n), labels] += 4
    return scale * logits, labels


@pytest.mark.breadth(1)
@pytest.mark.parametrize("n", [2, 5, 20, 40, 80])
@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0, 12.0])
def test_a_temperature_is_not_used_where_it_makes_probabilities_worse(n: int, scale: float) -> None:
    generator = np.random.default_rng(1)
    logits, labels = over_sure(20_000, scale, generator)
    raw = cross_entropy(logits, labels).value
    found = [calibration.temperature_scaling(*over_sure(n, scale, generator)) for _ in range(30)]
    losses = [cross_entropy(logits / each.used, labels).value for each in found]
    assert np.mean(losses) < 1.02 * raw
    assert max(losses) < 2 * raw  # a sample of 20 in which two are wrong, of a model that is right on 98 %


@pytest.mark.parametrize("n", [20, 80, 360])
def test_images_that_are_all_right_show_no_temperature(n: int) -> None:
    """The likeliest temperature is 0; without an image that is wrong nothing shows how sure is too
    sure."""
    labels = np.arange(n) % 3
    found = calibration.temperature_scaling(8 * np.eye(3)[labels], labels)
    assert not found.helps
    assert found.used == 1
    assert found.fitted.value < 1
    assert found.fitted.high == math.inf
    assert calibration.temperature_scaling(np.zeros((n, 3)), labels).used == 1


@pytest.mark.parametrize(("classes", "n"), [(10, 360), (2, 360), (2, 1000), (3, 100), (10, 20)])
@pytest.mark.slow
def test_scores_of_probabilities_are_covered_where_nearly_all_are_right(classes: int, n: int) -> None:
    generator = np.random.default_rng(1)

    def draw(images: int) -> Case:
        labels = generator.integers(classes, size=images)
        logits = generator.normal(size=(images, classes))
        logits[np.arange(images), labels] += 4
        return 12 * logits, labels

    def scores(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> list[Estimate]:
        p = probabilities_of(logits)
        return [cross_entropy(logits, labels), calibration.brier(p, labels), calibration.ece(p, labels)]

    truth = [each.value for each in scores(*draw(400_000))]
    found = [scores(*draw(n)) for _ in range(300)]
    covered = np.mean([[e.low <= t <= e.high for e, t in zip(row, truth, strict=True)] for row in found], 0)
    assert (covered > 0.93).all()


def test_too_few_wrong_answers_give_a_lower_bound_only() -> None:
    logits, labels = 4 * np.eye(3)[np.arange(90) % 3], np.arange(90) % 3
    all_right = cross_entropy(logits, labels)
    assert (all_right.low > 0, all_right.high) == (True, math.inf)
    assert "without an upper end" in all_right.method
    three_wrong = cross_entropy(logits, np.where(np.arange(90) < 3, (labels + 1) % 3, labels))
    assert three_wrong.value < three_wrong.high < 1
    assert cross_entropy(logits, (labels + 1) % 3).high == pytest.approx(4.036, abs=0.3)  # all wrong, alike


def slow_risks(p: NDArray[np.float64], labels: NDArray[np.int64], orders: int) -> NDArray[np.float64]:
    """The curve with ties in a random order, averaged over many."""
    generator, wrong = np.random.default_rng(0), p.argmax(1) != labels
    curves = []
    for _ in range(orders):
        shuffled = generator.permutation(len(labels))
        order = shuffled[np.argsort(-p.max(1)[shuffled], kind="stable")]
        curves.append([wrong[order][:k].mean() for k in range(1, len(labels) + 1)])
    return np.mean(curves, axis=0)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(cases())
def test_risk_coverage_and_its_area(case: Case) -> None:
    p, labels = np.round(probabilities_of(case[0]), 2), case[1]
    slow = slow_risks(p, labels, 600)
    coverage, risk = calibration.risk_coverage(p, labels, points=1000)
    assert coverage == pytest.approx(np.arange(1, len(labels) + 1) / len(labels))
    assert risk == pytest.approx(slow, abs=0.1)  # of the averaging: five standard errors
    found = calibration.aurc(p, labels)
    assert found.value == pytest.approx(slow.mean(), abs=0.05)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_risk_coverage_has_at_most_its_points_and_ends_with_all() -> None:
    generator = np.random.default_rng(0)
    p, labels = probabilities_of(generator.normal(size=(5000, 3))), generator.integers(0, 3, 5000)
    coverage, risk = calibration.risk_coverage(p, labels)
    assert len(coverage) == len(risk) <= 101
    assert (coverage[-1], risk[-1]) == (1, pytest.approx((p.argmax(1) != labels).mean()))


def test_aurc_of_an_oracle_a_coin_and_the_extremes() -> None:
    tied, labels = np.array([[0.9, 0.1]] * 10), np.array([0] * 7 + [1] * 3)
    assert calibration.aurc(tied, labels).value == pytest.approx(
        0.3
    )  # no order: the risk is the same everywhere
    sure = np.column_stack([np.linspace(0.99, 0.6, 10), np.linspace(0.01, 0.4, 10)])
    assert calibration.aurc(sure, labels).value == pytest.approx(np.mean([0] * 7 + [1 / 8, 2 / 9, 3 / 10]))
    assert (calibration.aurc(sure, labels * 0).value, calibration.aurc(sure, labels * 0).high > 0.2) == (
        0,
        True,
    )
    assert (
        calibration.aurc(sure, labels * 0 + 1).value,
        calibration.aurc(sure, labels * 0 + 1).low < 0.8,
    ) == (1, True)


@QUICK
@given(cases(), st.integers(0, 100))
def test_nothing_depends_on_the_order_of_the_images(case: Case, seed: int) -> None:
    p, labels = probabilities_of(case[0]), case[1]
    order = np.random.default_rng(seed).permutation(len(labels))
    for figure in (calibration.ece, calibration.aurc):
        first, second = figure(p, labels), figure(p[order], labels[order])
        assert (first.value, first.low, first.high) == pytest.approx(
            (second.value, second.low, second.high), abs=1e-9
        )


@pytest.mark.slow
def test_aurcs_interval_covers_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)

    def draw(n: int) -> Case:
        p = probabilities_of(generator.normal(size=(n, 4)) * 3)
        return p, drawn_from(p, generator)

    truth = calibration.aurc(*draw(1_000_000)).value
    covered = [e.low <= truth <= e.high for e in (calibration.aurc(*draw(360)) for _ in range(600))]
    assert abs(np.mean(covered) - 0.95) < 0.03


def test_no_images() -> None:
    p, labels = np.zeros((0, 3)), np.zeros(0, np.int64)
    for figure in (calibration.brier, calibration.ece, calibration.aurc):
        assert math.isnan(figure(p, labels).value)
        assert figure(p, labels).n == 0
    assert [each.n for each in calibration.reliability(p, labels)] == [0] * calibration.BINS


def test_a_class_that_is_ruled_out_does_not_disturb_the_temperature() -> None:
    generator = np.random.default_rng(0)
    logits, labels = of_temperature(300, 3.0, generator)
    masked = np.column_stack([logits, np.full(300, -np.inf)])
    found, plain = (calibration.temperature_scaling(z, labels) for z in (masked, logits))
    assert (found.fitted.value, found.helps) == (pytest.approx(plain.fitted.value), plain.helps)
    labels[0] = 10
    assert calibration.temperature_scaling(masked, labels).fitted.n == 299
    two = np.array([[0.0, -np.inf], [-np.inf, 0.0]] * 20)
    assert calibration.temperature_scaling(two, np.arange(40) % 2).used == 1
