"""The fitted law against exact ones, and its intervals against laws that the data was drawn from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stresslens.core.types import Estimate
from stresslens.metrics.intervals import wilson
from stresslens.metrics.power_law import power_law

SIZES = [600, 1800, 6000, 18000, 54000]


def exact(scale: float, exponent: float, half: float = 1e-3) -> list[Estimate]:
    values = [scale * n**-exponent for n in SIZES]
    return [Estimate(v, v * (1 - half), v * (1 + half), 10_000, "exact") for v in values]


@given(st.floats(0.5, 20), st.floats(-0.2, 1.5))
def test_an_exact_law_is_found(scale: float, exponent: float) -> None:
    law = power_law(SIZES, exact(scale, exponent))
    assert law is not None
    assert law.exponent.value == pytest.approx(exponent, abs=1e-9)
    assert law.scale == pytest.approx(scale, rel=1e-9)
    assert law.p == pytest.approx(1.0)
    assert law.error(108_000).value == pytest.approx(scale * 108_000**-exponent)
    assert law.tenfold.value == pytest.approx(10**-exponent)
    assert law.tenfold.low <= law.tenfold.value <= law.tenfold.high


def test_the_interval_holds_the_exponent_it_was_drawn_from() -> None:
    generator, held, rounds = np.random.default_rng(0), 0, 400
    for _ in range(rounds):
        errors = [wilson(int(generator.binomial(10_000, 3 * n**-0.45)), 10_000) for n in SIZES]
        law = power_law(SIZES, errors)
        assert law is not None
        held += law.exponent.low <= 0.45 <= law.exponent.high
    assert held >= 0.93 * rounds


@pytest.mark.breadth(1)
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9], ids="{:.0%} of the variance shared".format)
@pytest.mark.parametrize("known", [False, True], ids=["correlation unknown", "known"])
def test_errors_on_the_same_images_are_forecast(shared: float, known: bool) -> None:
    generator, rounds = np.random.default_rng(3), 200
    sizes, images, held = [500, 1000, 2000, 4000, 8000], 1000, np.zeros(2)
    truth = {n: 0.4 * (n / 500) ** -0.35 for n in (*sizes, 16_000)}
    thresholds = stats.norm.ppf([[1 - truth[n]] for n in sizes])
    for _ in range(rounds):
        hard = generator.normal(size=images) * shared**0.5
        wrong = thresholds + hard + generator.normal(size=(5, images)) * (1 - shared) ** 0.5 < 0
        errors = [wilson(int(row.sum()), images) for row in wrong]
        law = power_law(sizes, errors, correlation=np.corrcoef(wrong) if known else None)
        assert law is not None
        forecasts = [law.error(16_000), law.error(2000)]
        held += [e.low <= truth[n] <= e.high for n, e in zip((16_000, 2000), forecasts, strict=True)]
    assert (held >= 0.93 * rounds).all()


def test_points_that_follow_no_law_say_so() -> None:
    flat = [Estimate(v, 0.99 * v, 1.01 * v, 10_000, "") for v in (0.2, 0.05, 0.02, 0.0199, 0.0198)]
    law = power_law(SIZES, flat)
    assert law is not None
    assert law.p < 1e-6
    closer = power_law(SIZES, exact(1.0, law.exponent.value, 0.01))
    assert closer is not None
    assert law.exponent.high - law.exponent.low > 10 * (closer.exponent.high - closer.exponent.low)


def test_too_few_points_or_no_intervals_have_no_law() -> None:
    assert power_law(SIZES[:2], exact(1, 0.5)[:2]) is None
    assert power_law([600, 600, 1800], exact(1, 0.5)[:3]) is None
    unknown = Estimate(0.1, math.nan, math.nan, 1, "")
    assert power_law(SIZES[:3], [*exact(1, 0.5)[:2], unknown]) is None
    without = [Estimate(0.0, 0.0, 0.001, 100, ""), *exact(1, 0.5)[1:4]]
    law = power_law(SIZES[:4], without)
    assert law is not None
    assert law.exponent.n == 3
