"""An estimate behaves like its value where a number is expected, and shows its interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from stresslens.core.types import Estimate, Finding


def estimate(value: float, low: float = math.nan, high: float = math.nan) -> Estimate:
    return Estimate(value, low, high, 360, "Wilson")


ONE = estimate(0.886, 0.849, 0.915)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (ONE, "0.886 (0.849 to 0.915, n = 360)"),
        (estimate(2), "2 (no interval, n = 360)"),
        (estimate(0.07, 0.06, math.inf), "0.07 (at least 0.06, n = 360)"),
        (estimate(0.07, -math.inf, 0.08), "0.07 (at most 0.08, n = 360)"),
        (estimate(math.nan), "nan (no interval, n = 360)"),
    ],
    ids=["both", "none", "above", "below", "missing"],
)
def test_it_says_its_interval(given: Estimate, said: str) -> None:
    assert str(given) == f"{given}" == said
    assert repr(given) == f"Estimate({said})"


@pytest.mark.parametrize(
    ("spec", "written"), [(".3f", "0.886"), (".1%", "88.6%"), ("8.2f", "    0.89"), ("+.1e", "+8.9e-01")]
)
def test_it_takes_the_formats_of_numbers(spec: str, written: str) -> None:
    assert f"{ONE:{spec}}" == written


def test_it_is_a_number_where_one_is_needed() -> None:
    assert float(ONE) == 0.886
    assert np.asarray([float(each) for each in (ONE, estimate(1))]).tolist() == [0.886, 1.0]
    assert round(float(ONE), 1) == 0.9


@pytest.mark.parametrize("other", [0.5, 0, np.float32(0.5), np.float64(0.5), estimate(0.5, 0.4, 0.99)])
def test_it_is_ordered_by_its_value(other: Any) -> None:
    assert other < ONE
    assert other <= ONE
    assert other < ONE
    assert other <= ONE
    assert not other > ONE
    assert not other >= ONE
    assert max([ONE, estimate(0.2)]) is ONE
    assert sorted([ONE, estimate(0.2)])[1] is ONE


def test_equality_is_of_all_fields() -> None:
    assert estimate(0.886, 0.849, 0.915) == ONE
    assert estimate(0.886, 0.8, 0.915) != ONE
    assert ONE != 0.886
    assert estimate(0.886) >= ONE
    assert len({ONE, estimate(0.886, 0.849, 0.915)}) == 1


def test_nothing_is_ordered_beside_nan_or_words() -> None:
    assert not math.nan > ONE
    assert not math.nan < ONE
    with pytest.raises(TypeError):
        ONE < "a lot"  # type: ignore[operator]  # noqa: B015


def test_a_finding_is_one_line() -> None:
    found = Finding("a check", "sign", "serious", "it is\nso " * 500, 7, "do this")
    assert repr(found).startswith("Finding(a check: sign (serious), n = 7: it is")
    assert len(repr(found)) < 400
    assert Finding("b", "no sign", "none", "", 7)._repr_html_().count("<p") == 1


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (round(ONE, 2), 0.89),
        (ONE - estimate(0.5), 0.386),
        (ONE - 0.5, 0.386),
        (1 - ONE, 0.114),
        (np.float32(1) - ONE, 0.114),
        (100 * ONE, 88.6),
        (ONE / 2, 0.443),
        (sum([ONE, estimate(0.5)]) / 2, 0.693),
        (np.mean([ONE, estimate(0.5)]), 0.693),  # type: ignore[call-overload]
        (-ONE, -0.886),
        (abs(estimate(-0.5)), 0.5),
    ],
    ids=str,
)
def test_what_is_computed_with_it_is_a_plain_number(result: Any, value: float) -> None:
    assert isinstance(result, float)
    assert result == pytest.approx(value)


def test_text_is_not_added() -> None:
    with pytest.raises(TypeError):
        ONE + "1"
