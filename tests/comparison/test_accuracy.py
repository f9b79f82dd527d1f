from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stresslens.comparison.accuracy import accuracy_of, compare_accuracy
from stresslens.comparison.difference import (
    Difference,
    difference_of,
    divided_difference_of,
    planned_difference,
    with_holm,
)
from stresslens.comparison.schema import ComparisonFile
from stresslens.config import study_file
from stresslens.config.study_record import read_study_record
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.record import DivisionRecord
from stresslens.study import pipeline

Make = Callable[..., RunFolder]


def answers(seed: int, seeds: int, images: int, accuracy: float, spread: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    share = np.clip(accuracy + spread * random.standard_normal((seeds, 1)), 0, 1)
    return (random.random((seeds, images)) < share).astype(float)


def test_all_right_is_not_certain() -> None:
    one, three = (accuracy_of(np.ones((seeds, 360))) for seeds in (1, 3))
    assert one.value == one.high == three.value == three.high == 1.0
    assert one.low == pytest.approx(stats.binomtest(360, 360).proportion_ci(method="wilson").low)
    assert 0.98 < three.low < 0.995


def test_one_seed_speaks_of_images_only() -> None:
    difference = with_holm([difference_of("c", "a", "b", answers(1, 1, 400, 0.6), answers(2, 1, 400, 0.9))])[
        0
    ]
    assert difference.difference.unit == "images"
    assert difference.real
    assert "about these weights" in difference.verdict


@pytest.mark.parametrize(("for_b", "for_a"), [(0, 0), (4, 0), (5, 0), (6, 0), (12, 3), (60, 40), (11, 3)])
def test_one_seed_is_mcnemars_exact_test_and_its_interval_agrees(for_b: int, for_a: int) -> None:
    a, b = np.ones((1, 360)), np.ones((1, 360))
    a[:, :for_b] = 0
    b[:, for_b : for_b + for_a] = 0
    difference = with_holm([difference_of("c", "a", "b", a, b)])[0]
    exact = stats.binomtest(for_b, for_b + for_a).pvalue if for_b else 1.0
    assert difference.p == pytest.approx(exact)
    assert difference.real == (exact < 0.05) == (difference.difference.low > 0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(5, 60))
def test_sides_are_symmetric_and_interval_and_verdict_agree(seed: int, seeds: int, images: int) -> None:
    a, b = answers(seed, seeds, images, 0.6, 0.1), answers(seed + 1, seeds, images, 0.8, 0.1)
    forth, back = (with_holm([difference_of("c", "a", "b", *pair)])[0] for pair in ((a, b), (b, a)))
    d, e = forth.difference, back.difference
    assert (d.value, d.low, d.high) == pytest.approx((-e.value, -e.high, -e.low))
    assert (forth.p, forth.real, forth.plan) == (pytest.approx(back.p), back.real, back.plan)
    assert forth.real == (forth.p < 0.05) == (d.low > 0 or d.high < 0)
    assert -1 <= d.low <= d.value <= d.high <= 1


def test_an_interval_beside_not_distinguishable_includes_zero() -> None:
    random = np.random.default_rng(1)
    a = (random.random((3, 400)) < 0.80).astype(float)
    b = np.where(random.random((3, 400)) < 0.05, 1.0, a)
    pairs = [difference_of("c", "a", "b", a, b)]
    pairs += [difference_of("c", "a", f"x{k}", a, a[:, ::-1].copy()) for k in range(40)]
    found = with_holm(pairs)[0]
    assert found.difference.low > 0
    assert not found.real
    adjusted = found.adjusted
    assert adjusted is not None
    assert adjusted.low <= 0 < found.difference.low
    assert adjusted.high > found.difference.high
    assert adjusted.level == pytest.approx(1 - 0.05 * found.p / found.p_holm)
    shown = f"({100 * adjusted.low:.1f} to {100 * adjusted.high:.1f} after Holm's correction; 3 seeds"
    assert shown in found.verdict
    assert found.as_contrast().adjusted == adjusted


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_holm_decides_as_its_interval_does(seeds: int) -> None:
    """The interval at the level of the test ends at zero where Holm's p is the limit."""
    random = np.random.default_rng(seeds)
    for shift in (0.01, 0.02, 0.04, 0.08):
        a = (random.random((seeds, 600)) < 0.8).astype(float)
        b = np.where(random.random((seeds, 600)) < shift, 1.0, a)
        for found in with_holm([difference_of("c", "a", f"b{k}", a, b) for k in range(6)]):
            outside = found.difference.low > 0
            assert (found.adjusted is not None) == (outside and not found.real and not found.too_few_seeds)


def test_two_seeds_that_agree_are_too_few_to_test() -> None:
    random = np.random.default_rng(0)
    a = (random.random((2, 2000)) < 0.80).astype(float)
    b = (random.random((2, 2000)) < [[0.88], [0.94]]).astype(float)
    found = with_holm([difference_of("c", "a", "b", a, b)])[0]
    assert not found.real
    assert "too few seeds to test" in found.verdict
    assert "not distinguishable" not in found.verdict
    assert found.as_contrast().too_few_seeds
    many = replace(found, difference=replace(found.difference, low=0.01), p=0.03, p_holm=0.09)
    assert "too few seeds to test this many pairs (2000 images)" in many.verdict
    same = with_holm([difference_of("c", "a", "b", a, a[::-1].copy())])[0]
    assert "not distinguishable" in same.verdict


def test_identical_recipes_are_not_distinguishable() -> None:
    a = answers(5, 4, 200, 0.9)
    difference = difference_of("c", "a", "b", a, a)
    assert (difference.difference.value, difference.real) == (0.0, False)
    assert difference.p == pytest.approx(1)
    assert "not distinguishable" in difference.verdict


def test_a_difference_that_is_written_as_zero_has_no_winner() -> None:
    a, b = np.ones((2, 1, 4000), np.float32)
    a[0, :20], b[0, 20:41] = 0, 0  # 20 and 21 of 4,000 wrong: 0.025 points
    assert with_holm([difference_of("c", "a", "b", a, b)])[0].verdict == (
        "a and b are not distinguishable: b minus a is 0.0 points (-0.3 to 0.3; 4000 images)"
    )


def test_a_real_difference_is_written_with_the_digits_that_tell_it() -> None:
    a, b = np.ones((2, 1, 60_000), np.float32)
    a[0, :18] = 0  # 0.03 points, p < 0.0001
    assert with_holm([difference_of("c", "a", "b", a, b)])[0].verdict.startswith(
        "b is better than a by 0.03 points ("
    )


def test_verdict_names_the_better_whichever_stands_first() -> None:
    low, high = answers(6, 8, 360, 0.7), answers(7, 8, 360, 0.95)
    assert with_holm([difference_of("c", "a", "b", low, high)])[0].verdict.startswith(
        "b is better than a by 2"
    )
    assert with_holm([difference_of("c", "a", "b", high, low)])[0].verdict.startswith(
        "a is better than b by 2"
    )


def test_holm_is_the_step_down_correction_and_counts_a_pair_once() -> None:
    zero = Estimate(0.0, -1.0, 1.0, 1, "")
    pairs = [("c", "a", "b", 0.01), ("c", "a", "d", 0.04), ("c", "b", "d", 0.03), ("e", "a", "b", 0.01)]
    corrected = with_holm([Difference(c, a, b, zero, p, 3, 100) for c, a, b, p in pairs])
    assert [d.p_holm for d in corrected] == pytest.approx([0.03, 0.06, 0.06, 0.03])


def test_holm_counts_every_threat_even_where_they_are_described_alike() -> None:
    zero = Estimate(0.0, -1.0, 1.0, 1, "")
    tested = [("", "", 0.04), ("L∞ 0.1 (own)", "pgd", 0.01), ("L∞ 0.1 (own)", "square", 0.03)]
    corrected = with_holm(
        [
            Difference("c", "a", "b", zero, p, 3, 100, under=under, threat=threat)
            for under, threat, p in tested
        ]
    )
    assert [d.p_holm for d in corrected] == pytest.approx([0.06, 0.03, 0.06])


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.0), (2, 0.05), (5, 0.0), (5, 0.03)])
def test_equal_recipes_are_seldom_called_different(seeds: int, spread: float) -> None:
    """300 studies of three recipes equal in expectation, with images that all find hard: 5 % false
    verdicts, give or take."""
    random, studies, false, covered = np.random.default_rng(0), 300, 0, 0
    for _ in range(studies):
        hard = random.random(200) < 0.2
        shares = np.where(hard, 0.4, 0.95) + spread * random.standard_normal((3, seeds, 1))
        a, b, c = (random.random((3, seeds, 200)) < shares).astype(float)
        differences = with_holm([difference_of("c", "a", "b", a, b), difference_of("c", "a", "c", a, c)])
        false += any(d.real for d in differences)
        covered += differences[0].difference.low <= 0 <= differences[0].difference.high
    assert false <= stats.binom.ppf(0.999, studies, 0.05)
    assert covered >= stats.binom.ppf(0.001, studies, 0.95)


def test_asked_is_a_sensible_figure() -> None:
    points = [planned_difference(seen / 100) * 100 for seen in (0, 0.2, -0.6, 0.8, 2.2, -4.9, 7.4, 31)]
    assert points == pytest.approx([0.5, 0.5, 0.5, 1, 2, 5, 7, 31])


def test_the_plan_of_a_real_difference_is_to_find_it_again() -> None:
    random = np.random.default_rng(8)
    a = (random.random((2, 300)) < 0.5).astype(float)
    b = np.maximum(a, random.random((2, 300)) < [[0.22], [0.05]])
    found = difference_of("c", "a", "b", a, b)
    assert found.plan.startswith("telling 7 points apart would take about")
    real = replace(found, p_holm=0.01, difference=replace(found.difference, low=0.01))
    assert real.plan == found.plan.replace("telling", "finding").replace("apart", "again with 80 % chance")
    assert real.as_contrast().plan == real.plan
    smaller = replace(real, ask=0.01)
    assert smaller.plan.startswith("telling 1 point apart would take")


def test_the_plan_says_what_it_would_take() -> None:
    random = np.random.default_rng(8)
    a, b = (random.random((2, 1, 360)) + 0.02 * random.random((2, 3, 360)) < 0.9).astype(float)
    assert "telling 0.5 points apart would take about" in difference_of("c", "a", "b", a, b, ask=0.005).plan
    enough = difference_of("c", "a", "b", a, b, ask=0.2).plan
    assert enough == "these 3 seeds and 360 images are enough to tell 20 points apart in a single comparison"
    alone = difference_of("c", "a", "b", a[:1], b[:1], ask=0.01).plan
    assert alone.startswith("telling 1 point apart would take about")
    assert alone.endswith("images, for these weights alone")
    vary = np.stack([np.full(50, k % 2) for k in range(4)]).astype(float)
    assert difference_of("c", "a", "b", vary, 1 - vary, ask=0.01).plan.endswith(
        "more than 1,000 seeds or 1,000,000,000 images"
    )


def test_divisions_are_compared_by_the_corrected_t(made: Make) -> None:
    """5-fold: each seed has its own 20 test images, and the interval is Nadeau and Bengio's."""
    random, recipes = np.random.default_rng(3), {"a": {}, "b": {}}
    accuracy = np.empty((2, 5))
    for fold in range(5):
        labels = random.integers(0, 2, 20)
        division = {"kind": "folds", "folds": 5, "fold": fold, "repetition": 0, "train": 80, "test": 20}
        for k, run in enumerate(recipes):
            right = random.random(20) < 0.6 + 0.3 * k
            accuracy[k, fold] = right.mean()
            facts = {"labels": labels, "division": division, "splits": {"test": str(fold)}}
            recipes[run][f"seed-{fold}"] = made(run, fold, right, **facts)
    found = compare_accuracy(recipes, [("c", "a", "b")])
    contrast = found.contrasts[0]
    delta = accuracy[1] - accuracy[0]
    half = stats.t.ppf(0.975, 4) * np.sqrt((delta.var(ddof=1) + (0.5 / 20) ** 2 / 5) * (1 / 5 + 20 / 80))
    assert contrast.difference.value == pytest.approx(delta.mean())
    assert contrast.difference.low == pytest.approx(delta.mean() - half)
    assert "5 divisions, 20 test images each" in contrast.verdict
    assert "images in all" in contrast.plan or "are enough" in contrast.plan
    own = stats.t.ppf(0.975, 4) * np.sqrt((accuracy[0].var(ddof=1) + (0.5 / 20) ** 2 / 5) * (1 / 5 + 20 / 80))
    assert found.recipes["a"].low == pytest.approx(accuracy[0].mean() - own)
    assert "corrected resampled t" in found.recipes["a"].method
    again = divided_difference_of("c", "a", "b", delta, [DivisionRecord(kind="folds", train=80, test=20)] * 5)
    assert again.p == pytest.approx(contrast.p)
    same = divided_difference_of(
        "c", "a", "b", np.full(5, 0.05), [DivisionRecord(kind="folds", train=80, test=20)] * 5
    )
    assert same.difference.low < 0.05 < same.difference.high
    assert same.p > 1e-4


def test_seeds_tested_on_other_images_by_no_design_are_not_pooled(made: Make) -> None:
    right = np.arange(20) % 3 > 0
    recipes = {
        run: {f"seed-{k}": made(run, k, right, splits={"test": str(k)}) for k in range(2)}
        for run in ("a", "b")
    }
    found = compare_accuracy(recipes, [("c", "a", "b")])
    assert found.recipes == {}
    assert found.refused == ["a and b were not compared: their seeds were tested on different test images"]


def test_matrix_of_all_pairs_is_antisymmetric_and_corrected_for_its_pairs(made: Make) -> None:
    random = np.random.default_rng(4)
    hard = random.random(300)
    recipes = {
        name: {f"seed-{k}": made(name, k, hard + 0.1 * random.random(300) < accuracy) for k in range(3)}
        for name, accuracy in zip("abcd", (0.7, 0.71, 0.9, 0.97))
    }
    found = compare_accuracy(recipes, [("c", "a", "b")])
    matrix = found.matrix
    assert matrix is not None
    assert matrix.recipes == list("abcd")
    difference, low, high = (
        np.array(each, dtype=float) for each in (matrix.difference, matrix.low, matrix.high)
    )
    for table in (difference, low, high):
        assert np.isnan(table.diagonal()).all()
    np.testing.assert_allclose(difference, -difference.T)
    np.testing.assert_allclose(low, -high.T)
    contrast = found.contrasts[0]
    assert difference[1, 0] == pytest.approx(contrast.difference.value)
    assert (low[1, 0], high[1, 0]) == pytest.approx((contrast.difference.low, contrast.difference.high))
    assert matrix.p_holm[1][0] >= contrast.p_holm
    assert matrix.real[3][0] is True
    assert matrix.real[0][3] is True
    assert matrix.real[0][1] is False
    assert "matrix" not in compare_accuracy({name: recipes[name] for name in "ab"}, []).as_json()


def test_comparison_json_has_the_agreed_keys(made: Make) -> None:
    random = np.random.default_rng(5)
    recipes = {
        name: {f"seed-{k}": made(name, k, random.random(100) < 0.8) for k in range(2)} for name in "abc"
    }
    compared = compare_accuracy(recipes, [("c", "a", "b"), ("c", "a", "missing")])
    found = compared.as_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert ComparisonFile.model_validate(found).as_json() == found
    expected = {
        "format",
        "split",
        "metric",
        "level",
        "recipes",
        "contrasts",
        "errors",
        "costs",
        "refused",
        "verdicts",
        "matrix",
        "best",
    }
    assert found.keys() == expected
    assert found["contrasts"][0].keys() == {
        "contrast",
        "a",
        "b",
        "difference",
        "p",
        "p_holm",
        "real",
        "verdict",
        "plan",
    }
    keys = {"contrast", "a", "b", "measure", "ratio", "p_holm", "real", "verdict", "cost_a", "cost_b"}
    assert found["costs"][0].keys() == keys
    assert [cost["measure"] for cost in found["costs"]] == [
        "seconds per epoch",
        "seconds to the stop",
        "parameters",
    ]


@pytest.mark.slow
def test_recipes_tested_on_different_images_are_not_compared(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "model: linear\ntrain: {epochs: 1, precision: float32}\n"
        "runs:\n  a: {data: {digits: {seed: 1, subset: 100}}}\n"
        "  b: {data: {digits: {seed: 2, subset: 100}}}\n  c: {data: {digits: {seed: 1}}}\n"
        "contrasts: {all: {pairs: [[a, b], [a, c]]}}\n"
    )
    folder = pipeline.run(study_file.read_study(file), out=tmp_path / "out")
    found = json.loads((folder / "comparison.json").read_text())
    assert ComparisonFile.read(folder / "comparison.json").as_json() == found
    assert read_study_record(folder).as_json() == read_json(folder / "study.json")
    assert [(c["a"], c["b"]) for c in found["contrasts"]] == [("a", "c")]
    assert found["verdicts"][-1].startswith("a and b were not compared: their test images differ (")
    assert "of 360 images of digits differ in label, the first at" in found["verdicts"][-1]


def test_runs_that_are_missing_and_seeds_without_a_partner_are_told(made: Make) -> None:
    random = np.random.default_rng(0)
    a, b = (
        {f"seed-{k}": made(run, k, (random.random(40) < 0.8).astype(float)) for k in range(n)}
        for run, n in (("a", 3), ("b", 2))
    )
    found = compare_accuracy({"a": a, "b": b, "c": {}}, [("x", "a", "b"), ("y", "a", "c")])
    assert found.refused == ["a and c were not compared: c is missing, without a finished run"]
    assert (
        found.verdicts[-1] == "left out of a against b, because the other has no run of this seed: a/seed-2"
    )
    assert "2 seeds, 40 images" in found.contrasts[0].verdict


def test_recipes_tested_on_different_images_are_not_ranked(made: Make) -> None:
    a = {"seed-0": made("a", 0, np.ones(40))}
    b = {"seed-0": made("b", 0, np.ones(30))}
    assert compare_accuracy({"a": a, "b": b}, []).verdicts == [
        "the runs were tested on different images; only those of the same images are ranked",
        "made (40 images): accuracy: a, 100.0 % (91.2 to 100.0)",
        "made (30 images): accuracy: b, 100.0 % (88.6 to 100.0)",
    ]
    assert compare_accuracy({"a": a}, []).verdicts[0].startswith("accuracy: a, 100.0 %")
