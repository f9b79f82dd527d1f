"""Which slices there are, what their rows hold, and whether p is one."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stresslens.metrics.paired import holm
from stresslens.metrics.slices import ROWS, p_of_no_difference, slices_of

QUICK = settings(max_examples=40, deadline=None)


def sliced(columns: dict[str, Any], right: Any, **given: Any) -> dict[str, Any]:
    options = {"brightness": np.zeros(len(right)), **given}
    return {
        each.by: each
        for each in slices_of({k: np.asarray(v) for k, v in columns.items()}, np.asarray(right), **options)
    }


def test_a_column_has_a_row_for_each_value() -> None:
    found = sliced({"camera": ["b", "a", "a", "b", "a"]}, [True, True, False, True, False])["camera"]
    assert [(r.value, r.accuracy.n, r.accuracy.value) for r in found.rows] == [
        ("a", 3, pytest.approx(1 / 3)),
        ("b", 2, 1),
    ]


def test_what_does_not_vary_or_identifies_an_image_is_no_slice() -> None:
    n = 40
    columns = {
        "file": [str(k) for k in range(n)],
        "group": ["a", "b"] * 20,
        "bytes": [1, 2] * 20,
        "site": ["x"] * n,
    }
    columns |= {"width": [8] * n, "height": [8] * n, "patient": np.arange(n) % (ROWS + 1)}
    assert sliced(columns, np.ones(n, bool)) == {}


def test_a_named_column_is_shown_with_its_rarest_values_together() -> None:
    values = np.repeat(np.arange(30), np.arange(30, 0, -1))
    found = sliced({"patient": values}, np.ones(len(values), bool), named=["patient"])["patient"]
    assert [r.value for r in found.rows] == [str(k) for k in range(ROWS - 1)] + ["other"]
    assert found.rows[-1].accuracy.n == sum(range(1, 12))
    assert sum(r.accuracy.n for r in found.rows) == len(values)


def test_brightness_in_thirds_and_size_in_quarters() -> None:
    brightness = np.linspace(0, 1, 90)
    columns = {"width": np.arange(90) + 10, "height": np.full(90, 10)}
    found = sliced(columns, brightness < 0.5, brightness=brightness, saturation=np.zeros(90))
    assert [(r.value, r.accuracy.n) for r in found["brightness"].rows] == [
        ("dark (0.00 to 0.33)", 30),
        ("medium (0.34 to 0.66)", 30),
        ("bright (0.67 to 1.00)", 30),
    ]
    assert [r.value.split()[0] for r in found["size"].rows] == ["smallest", "small", "large", "largest"]
    assert "saturation" not in found
    assert max(found["brightness"].p_holm, found["size"].p_holm) < 0.001


@QUICK
@given(st.lists(st.integers(0, 3), min_size=2, max_size=60))
def test_equal_values_stay_together(values: list[int]) -> None:
    found = sliced({}, np.ones(len(values), bool), brightness=np.array(values) / 3)
    rows = found["brightness"].rows if found else ()
    assert len(rows) <= len(set(values))
    assert not rows or sum(r.accuracy.n for r in rows) == len(values)


def test_p_of_many_images_is_pearsons() -> None:
    place, right = (
        np.repeat([0, 1, 2], 200),
        np.random.default_rng(0).random(600) < np.repeat([0.8, 0.85, 0.75], 200),
    )
    table = [[right[place == k].sum(), (~right[place == k]).sum()] for k in range(3)]
    assert p_of_no_difference(right, place) == pytest.approx(
        stats.chi2_contingency(table, correction=False).pvalue
    )


def test_p_of_few_images_is_that_of_every_arrangement() -> None:
    place, right = np.array([0] * 4 + [1] * 3 + [2] * 3), np.array([False] * 3 + [True] * 7)

    def chi(errors: tuple[int, ...]) -> float:
        counts = np.bincount(place[list(errors)], minlength=3)
        sizes = np.bincount(place)
        return float((np.square(counts - sizes * 0.3) / (sizes * 0.3 * 0.7)).sum())

    every = [chi(errors) for errors in combinations(range(10), 3)]
    exact = np.mean([value >= chi((0, 1, 2)) - 1e-9 for value in every])
    assert p_of_no_difference(right, place) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("right", [[True] * 6, [False] * 6])
def test_without_errors_or_without_successes_nothing_differs(right: list[bool]) -> None:
    assert p_of_no_difference(np.array(right), np.array([0, 0, 1, 1, 2, 2])) == 1


def test_p_of_groups_alike_is_seldom_small() -> None:
    generator = np.random.default_rng(0)
    ps = [
        p_of_no_difference(generator.random(60) < 0.95, np.repeat([0, 1, 2], 20), seed=k) for k in range(300)
    ]
    assert np.mean(np.array(ps) <= 0.05) < 0.08


@QUICK
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm(ps: list[float]) -> None:
    found = holm(dict(enumerate(ps)))
    assert len(found) == len(ps)
    assert all(p <= adjusted <= 1 for p, adjusted in ((ps[k], found[k]) for k in range(len(ps))))
    ranked = sorted(range(len(ps)), key=lambda k: ps[k])
    slow = [
        min(1.0, max(ps[ranked[j]] * (len(ps) - j) for j in range(place + 1))) for place in range(len(ps))
    ]
    assert [found[k] for k in ranked] == pytest.approx(slow)
