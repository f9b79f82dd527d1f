"""Accuracies alone: what is said of them is what scipy says, and what cannot be said is said too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import stresslens as sl
from stresslens.comparison.reported_accuracy import compare_reported, estimate_of
from stresslens.core.errors import ConfigError, DataError
from stresslens.evaluation.accuracy_table import ReportedAccuracy, is_table_of_accuracies, read_accuracies
from stresslens.metrics.intervals import wilson

Type = Callable[..., tuple[int, str, str]]
A, B = (0.931, 0.935, 0.929), (0.946, 0.949, 0.942, 0.951)


def test_over_seeds_alone_it_is_welchs_t_test() -> None:
    found = compare_reported({"a": ReportedAccuracy(A, None), "b": ReportedAccuracy(B, None)})
    (contrast,) = found.comparison.contrasts
    expected = stats.ttest_ind(B, A, equal_var=False)
    assert contrast.p == pytest.approx(expected.pvalue, rel=1e-6)
    interval = expected.confidence_interval()
    assert (contrast.difference.low, contrast.difference.high) == pytest.approx(tuple(interval), rel=1e-6)
    assert contrast.difference.n == 3
    assert "the number of test images of a and b is not known" in " ".join(found.comparison.verdicts).lower()


def test_a_mean_over_seeds_has_students_interval() -> None:
    found = estimate_of(ReportedAccuracy(A, None))
    low, high = stats.t.interval(0.95, 2, np.mean(A), stats.sem(A))
    assert (found.low, found.high, found.unit) == (pytest.approx(low), pytest.approx(high), "seeds")


def test_images_widen_the_interval() -> None:
    alone = estimate_of(ReportedAccuracy(A, None))
    margin = (alone.high - alone.low) / 2
    found = estimate_of(ReportedAccuracy(A, 1000))
    mean = float(np.mean(A))
    images = 1.959964**2 * mean * (1 - mean) / 1000
    assert (found.high - found.low) / 2 == pytest.approx((margin**2 + images) ** 0.5, rel=1e-6)


def test_one_seed_with_its_images() -> None:
    found = compare_reported({"a": ReportedAccuracy((0.91,), 1000), "b": ReportedAccuracy((0.95,), 1000)})
    assert found.comparison.recipes["a"] == wilson(910, 1000)
    (contrast,) = found.comparison.contrasts
    z = 0.04 / (0.91 * 0.09 / 1000 + 0.95 * 0.05 / 1000) ** 0.5
    assert contrast.p == pytest.approx(2 * stats.norm.sf(z), rel=1e-6)
    assert "about these weights" in contrast.verdict


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ((0.9,), (0.95,), "one figure each and no number of images"),
        ((0.9, 0.91), (0.95, 0.96), "2 seeds each, too few to test"),
        ((0.9, 0.91, 0.92), (0.95,), "3 and 1 seeds, too few to test"),
        ((0.9, 0.9, 0.9), (0.95, 0.95, 0.95), "3 seeds each, which do not vary"),
    ],
)
def test_what_cannot_be_said(a: tuple[float, ...], b: tuple[float, ...], said: str) -> None:
    (contrast,) = compare_reported(
        {"a": ReportedAccuracy(a, None), "b": ReportedAccuracy(b, None)}
    ).comparison.contrasts
    assert said in contrast.verdict
    assert contrast.p is None
    assert not contrast.real


def test_from_a_table(type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ["model,seed,test_acc,images"]
    rows += [f"old,{k},{100 * v:.1f},10000" for k, v in enumerate(B)]
    rows += [f"new,{k},{100 * v:.1f},10000" for k, v in enumerate(A)]
    Path("acc.csv").write_text("\n".join(rows))
    code, out, err = type_("acc.csv")
    assert code == 5
    assert "old is better than new by" in out
    assert "images are not paired" in out
    assert "old is better" in err
    assert sl.compare("acc.csv")["contrasts"][0]["verdict"] in out
    assert "| new | 93.2" in type_("acc.csv", "--markdown")[1]
    code, _, err = type_("acc.csv", "--metric", "auroc")
    assert code == 2
    assert "accuracies alone" in err


def test_figures_of_transformers_and_the_log_of_lightning(tmp_path: Path) -> None:
    for name, value in (("a-seed0", 0.9), ("a-seed1", 0.91), ("b-seed0", 0.95)):
        (tmp_path / name).mkdir()
        figures = {"eval_accuracy": value, "eval_samples": 500, "epoch": 3}
        (tmp_path / name / "all_results.json").write_text(json.dumps(figures))
    found = read_accuracies(sorted(tmp_path.glob("*/all_results.json")))
    assert found == {"a": ReportedAccuracy((0.9, 0.91), 500), "b": ReportedAccuracy((0.95,), 500)}
    (tmp_path / "net-seed2.csv").write_text("epoch,step,test_acc\n0,10,0.5\n1,20,\n2,30,0.75\n")
    assert read_accuracies([tmp_path / "net-seed2.csv"]) == {"net": ReportedAccuracy((0.75,), None)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,accuracy\na,high\n", "row 1: 'high' in the column 'accuracy' is no number"),
        ("model,accuracy\na,120\n", "row 1: 120 is no accuracy; expected a share or a percentage"),
        ("model,accuracy\na,-0.1\n", "is no accuracy"),
        ("model,accuracy\na,\n", "its column 'accuracy' is empty"),
        ("model,loss\na,1\n", "no column of accuracies"),
        ("model,accuracy,images\na,0.9,0\n", "0 images"),
        ("model,seed,accuracy\na,0,0.9\na,0,0.8\n", "a has two accuracies of seed 0, 0.9 and 0.8"),
        ("model,accuracy,n\na,0.9,10\na,0.8,20\n", "different numbers of images"),
    ],
)
def test_what_is_no_accuracy_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_accuracies([tmp_path / "a.csv"])


def test_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("wer,was\nx,0.9\n")
    found = read_accuracies([tmp_path / "a.csv"], {"accuracy": "was", "name": "wer"})
    assert found == {"x": ReportedAccuracy((0.9,), None)}
    with pytest.raises(ConfigError, match="no column 'wass'; did you mean 'was'"):
        read_accuracies([tmp_path / "a.csv"], {"accuracy": "wass"})
    with pytest.raises(ConfigError, match="accuracies of x alone"):
        compare_reported(found)


def test_files_in_percent_and_in_shares_and_seeds_that_are_there_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model,seed,accuracy\na,0,0.9\na,1,0.91\na,0,0.9\n")
    (tmp_path / "b.csv").write_text("model,seed,accuracy\nb,0,95\n")
    found = read_accuracies([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert found == {"a": ReportedAccuracy((0.9, 0.91), None), "b": ReportedAccuracy((0.95,), None)}
    (tmp_path / "c.csv").write_text("model,accuracy,images\na,0.9,inf\n")
    with pytest.raises(DataError, match="'inf' in the column 'images' is no number"):
        read_accuracies([tmp_path / "c.csv"])


def test_predictions_with_a_column_of_hits_are_predictions(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,y_true,y_pred,accuracy\n0.jpg,a,a,1\n1.jpg,a,b,0\n")
    assert not is_table_of_accuracies(tmp_path / "a.csv", {})
    assert is_table_of_accuracies(tmp_path / "a.csv", {"accuracy": "accuracy"})
