"""What the first sentences of a comparison say: who is ahead, by which images, and who learned nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stresslens.comparison.accuracy import compare_accuracy
from stresslens.core.files import read_json, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import balanced, wilson

Make = Callable[..., RunFolder]


def test_unbalanced_data_are_judged_by_balanced_accuracy_as_well(made: Make) -> None:
    labels = np.repeat([0, 1], [320, 40])
    always = (labels == 0).astype(float)
    balanced = np.ones(360)
    balanced[:64] = 0  # 80 % of the large class, 90 % of the small one
    balanced[-4:] = 0
    variants = {
        name: {"seed-0": made(name, 0, right, labels=labels)}
        for name, right in (("always", always), ("even", balanced))
    }
    found = compare_accuracy(variants, [("c", "always", "even")])
    assert found.verdicts[1].startswith(
        "the largest class has 88.9 % of the images; highest balanced accuracy: even, 85.0 %"
    )
    assert found.verdicts[2] == "always always names the same class, class 0: it has learned nothing else"
    contrast = found.contrasts[0]
    assert contrast.balanced is not None
    assert contrast.balanced.value == pytest.approx(0.35)
    assert "; by balanced accuracy even is ahead by 35.0 points (" in contrast.verdict
    same = {name: {"seed-0": made(name, 2, always, labels=labels)} for name in ("x", "y")}
    assert "; by balanced accuracy no difference was seen (-" in (
        compare_accuracy(same, [("c", "x", "y")]).contrasts[0].verdict
    )
    even = {name: {"seed-0": made(name, 1, np.ones(40))} for name in ("x", "y")}
    assert "balanced" not in compare_accuracy(even, [("c", "x", "y")]).as_json()["contrasts"][0]


def test_two_seeds_have_no_interval_of_balanced_accuracy_over_seeds(made: Make) -> None:
    labels = np.repeat([0, 1], [320, 40])
    right = np.ones((2, 2, 360))
    right[0, 0, 320:], right[0, 1, 322:] = 0, 0  # 50 and 52.5 %
    right[1, 0, 340:], right[1, 1, 344:] = 0, 0  # 75 and 80 %
    variants = {
        name: {f"seed-{k}": made(name, k, each, labels=labels) for k, each in enumerate(seeds)}
        for name, seeds in zip("ab", right)
    }
    found = compare_accuracy(variants, [("c", "a", "b")])
    each = [balanced([wilson(320, 320), wilson(n, 40)]) for n in (20, 24)]
    ends = f"({100 * each[0].low:.1f} to {100 * each[1].high:.1f})"
    assert f"highest balanced accuracy: b, 77.5 % {ends}" in found.verdicts[1]
    assert "; by balanced accuracy b is ahead by 26.2 points in the mean of 2 seeds" in (
        found.contrasts[0].verdict
    )


def test_the_headline_is_what_validation_chose(made: Make) -> None:
    right = np.ones((3, 200))
    right[0, :20], right[1, :10], right[2, :30] = 0, 0, 0

    def verdicts(*on_validation: float | None) -> list[str]:
        variants = {}
        for k, value in enumerate(on_validation):
            folder = made(f"v{k}", 0, right[k])
            record = read_json(folder.record)
            scores = {"validation": {"accuracy": Estimate(value, 0, 1, 50, "").as_json()}} if value else {}
            write_json(folder.record, record | {"scores": scores})
            variants[f"v{k}"] = {"seed-0": folder}
        return compare_accuracy(variants, []).verdicts

    assert verdicts(0.97, 0.96, 0.9) == [
        "validation chooses v0 (97.0 % on the validation images): 90.0 % (85.1 to 93.4) on the test images",
        "highest mean accuracy on the test images: v1, 95.0 % (91.0 to 97.3); validation did not choose it",
    ]
    assert verdicts(0.96, 0.97, 0.9) == [
        "validation chooses v1 (97.0 % on the validation images); it also has the highest mean accuracy on "
        "the test images: 95.0 % (91.0 to 97.3)"
    ]
    assert verdicts(0.97, 0.97, 0.9)[0] == (
        "validation does not choose between v0 and v1 (97.0 % on the validation images)"
    )
    assert verdicts(None, 0.97, 0.9) == [
        "highest mean accuracy: v1, 95.0 % (91.0 to 97.3); chosen by the test images, so a little too high"
    ]


def test_equal_accuracies_have_no_winner(made: Make) -> None:
    right = np.ones((3, 200))
    right[0, :10], right[1, 5:15], right[2, :30] = 0, 0, 0  # 95, 95 and 85 %
    named = {name: made(name, 0, each) for name, each in zip("abc", right)}

    def verdicts(**on_validation: float) -> list[str]:
        for name, value in on_validation.items():
            accuracy = Estimate(value, 0, 1, 50, "").as_json()
            record = read_json(named[name].record)
            write_json(named[name].record, record | {"scores": {"validation": {"accuracy": accuracy}}})
        return compare_accuracy({name: {"seed-0": folder} for name, folder in named.items()}, []).verdicts

    both = "a, 95.0 % (91.0 to 97.3); b, 95.0 % (91.0 to 97.3)"
    assert verdicts() == [
        f"equal highest mean accuracy: {both}; chosen by the test images, so a little too high"
    ]
    assert verdicts(a=0.9, b=0.97, c=0.9) == [
        "validation chooses b (97.0 % on the validation images); it also has the highest mean accuracy on "
        "the test images: 95.0 % (91.0 to 97.3); a is equal there"
    ]
    assert verdicts(a=0.9, b=0.9, c=0.97)[1] == (
        f"equal highest mean accuracy on the test images: {both}; validation did not choose them"
    )
    assert verdicts(a=0.97, b=0.97, c=0.9)[1] == f"equal highest mean accuracy on the test images: {both}"


def test_equal_balanced_accuracies_have_no_winner(made: Make) -> None:
    labels = np.repeat([0, 1], [320, 40])
    right = np.ones((2, 360))
    right[0, :8], right[1, 8:16] = 0, 0
    variants = {name: {"seed-0": made(name, 0, each, labels=labels)} for name, each in zip("ab", right)}
    found = compare_accuracy(variants, [("c", "a", "b")])
    assert "; equal highest balanced accuracy: a, 98.8 % (" in found.verdicts[1]
    assert "; by balanced accuracy no difference was seen (-" in found.contrasts[0].verdict


def test_a_model_that_is_not_better_than_the_largest_class_is_told(made: Make) -> None:
    labels = np.repeat([0, 1], [60, 40])
    right = np.ones(100)
    right[50:92] = 0
    folder = made("a", 0, right, labels=labels)
    record = read_json(folder.record)
    baseline = {"test": {"majority_baseline": Estimate(0.6, 0.5, 0.7, 100, "").as_json()}}
    write_json(folder.record, record | {"scores": baseline})
    told = compare_accuracy({"a": {"seed-0": folder}}, []).verdicts
    assert told[1:] == ["a is not shown to be better than always naming the largest class (60.0 %)"]
    better = made("b", 0, np.ones(100), labels=labels)
    write_json(better.record, read_json(better.record) | {"scores": baseline})
    assert len(compare_accuracy({"b": {"seed-0": better}}, []).verdicts) == 1


def test_two_seeds_that_are_both_better_than_the_largest_class_are_not_called_no_better(made: Make) -> None:
    labels = np.repeat([0, 1], 180)
    baseline = {"test": {"majority_baseline": Estimate(0.5, 0.45, 0.55, 360, "").as_json()}}

    def verdicts(*accuracies: float) -> list[str]:
        seeds = {}
        for seed, accuracy in enumerate(accuracies):
            right = (np.random.default_rng(seed).random(360) < accuracy).astype(float)
            folder = made(f"v{accuracies}", seed, right, labels=labels)
            write_json(folder.record, read_json(folder.record) | {"scores": baseline})
            seeds[f"seed-{seed}"] = folder
        return compare_accuracy({"v": seeds}, []).verdicts

    assert len(verdicts(0.70, 0.95)) == 1  # far apart: the interval over two seeds reaches below 50 %
    assert "not shown to be better" in verdicts(0.5, 0.95)[1]
