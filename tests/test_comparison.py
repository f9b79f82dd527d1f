from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stresslens import pipeline, study
from stresslens.comparison import Difference, accuracy_of, difference_of, with_holm
from stresslens.core.types import Estimate


def answers(seed: int, seeds: int, images: int, accuracy: float, spread: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    share = np.clip(accuracy + spread * random.standard_normal((seeds, 1)), 0, 1)
    return (random.random((seeds, images)) < share).astype(float)


def test_interval_is_at_least_as_wide_as_students_over_seeds() -> None:
    right = answers(0, 5, 360, 0.9, 0.03)
    estimate = accuracy_of(right)
    low, high = stats.t.interval(0.95, 4, right.mean(), stats.sem(right.mean(1)))
    assert estimate.low <= low + 1e-9
    assert estimate.high >= min(1, high) - 1e-9
    assert (estimate.unit, estimate.n) == ("both", 360)


def test_all_right_is_not_certain() -> None:
    for seeds in (1, 3):
        estimate = accuracy_of(np.ones((seeds, 360)))
        assert estimate.value == estimate.high == 1.0
        assert estimate.low == pytest.approx(stats.binomtest(360, 360).proportion_ci(method="wilson").low)


def test_one_seed_speaks_of_images_only() -> None:
    difference = with_holm([difference_of("c", "a", "b", answers(1, 1, 400, 0.6), answers(2, 1, 400, 0.9))])[0]
    assert difference.difference.unit == "images"
    assert difference.real
    assert "about these weights" in difference.verdict


def test_p_is_the_larger_of_paired_t_over_seeds_and_sign_flips_over_images() -> None:
    a, b = answers(3, 6, 3000, 0.85, 0.03), answers(4, 6, 3000, 0.88, 0.03)
    over_seeds = stats.ttest_rel(b.mean(1), a.mean(1)).pvalue
    over_images = stats.permutation_test(
        (b.mean(0) - a.mean(0),),
        np.mean,
        permutation_type="samples",
        n_resamples=9999,
        vectorized=True,
        rng=np.random.default_rng(5),
    ).pvalue
    assert difference_of("c", "a", "b", a, b).p == pytest.approx(max(over_seeds, over_images), abs=0.01)


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize(("for_b", "for_a"), [(4, 0), (5, 0), (6, 0), (12, 3)])
def test_the_same_images_in_every_seed_are_mcnemars_exact_test(seeds: int, for_b: int, for_a: int) -> None:
    a, b = np.ones((seeds, 360)), np.ones((seeds, 360))
    a[:, :for_b] = 0
    b[:, for_b : for_b + for_a] = 0
    difference = with_holm([difference_of("c", "a", "b", a, b)])[0]
    exact = stats.binomtest(for_b, for_b + for_a).pvalue
    assert difference.p == pytest.approx(exact)
    assert difference.real == (exact < 0.05)


def test_identical_recipes_are_not_distinguishable() -> None:
    a = answers(5, 4, 200, 0.9)
    difference = difference_of("c", "a", "b", a, a)
    assert (difference.difference.value, difference.p, difference.real) == (0.0, 1.0, False)
    assert "not distinguishable" in difference.verdict


def test_verdict_names_the_better_whichever_stands_first() -> None:
    low, high = answers(6, 8, 360, 0.7), answers(7, 8, 360, 0.95)
    assert with_holm([difference_of("c", "a", "b", low, high)])[0].verdict.startswith("b is better than a by 2")
    assert with_holm([difference_of("c", "a", "b", high, low)])[0].verdict.startswith(
        "b".replace("b", "a") + " is better than b by 2"
    )


def test_holm_is_the_step_down_correction_and_counts_a_pair_once() -> None:
    zero = Estimate(0.0, -1.0, 1.0, 1, "")
    pairs = [("c", "a", "b", 0.01), ("c", "a", "d", 0.04), ("c", "b", "d", 0.03), ("e", "a", "b", 0.01)]
    corrected = with_holm([Difference(c, a, b, zero, p, 3, 100) for c, a, b, p in pairs])
    assert [d.p_holm for d in corrected] == pytest.approx([0.03, 0.06, 0.06, 0.03])


def test_equal_recipes_are_seldom_called_different() -> None:
    """200 studies of two equal recipes whose seeds differ by more than their images: at most 5 % false verdicts, give or take."""
    false = 0
    for trial in range(200):
        a, b = (answers(1000 + 2 * trial + k, 5, 200, 0.85, 0.03) for k in (0, 1))
        false += with_holm([difference_of("c", "a", "b", a, b)])[0].real
    assert false <= 18  # binomial(200, 0.05) exceeds 18 with p < 0.01


def test_recipes_tested_on_different_images_are_not_compared(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "model: linear\ntrain: {epochs: 1, precision: float32}\n"
        "runs:\n  a: {data: {digits: {seed: 1, subset: 100}}}\n"
        "  b: {data: {digits: {seed: 2, subset: 100}}}\n  c: {data: {digits: {seed: 1}}}\n"
        "contrasts: {all: {pairs: [[a, b], [a, c]]}}\n"
    )
    folder = pipeline.run(study.read(file), out=tmp_path / "out")
    found = json.loads((folder / "comparison.json").read_text())
    assert [(c["a"], c["b"]) for c in found["contrasts"]] == [("a", "c")]
    assert "a and b were not compared: their test images differ" in found["verdicts"]
