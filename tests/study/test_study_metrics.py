"""`metrics:` of a study file: its contrasts judged by further metrics, in comparison.json, on the page and
on the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

Type = Callable[..., tuple[int, str, str]]
NAMES = ("cat", "dog", "fox")
STUDY = """
study:
  predictions: {plain: plain-seed*.csv, weighted: weighted-seed*.csv, sure: sure-seed*.csv}
contrasts:
  rare: {pairs: [[plain, weighted], [plain, sure]]}
"""


def drawn(seed: int, lean: float, scale: float, shares: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (300, 3) and labels (300,); `lean` is what the logits of the rare classes have more."""
    world, own = np.random.default_rng(0), np.random.default_rng([seed, int(10 * lean), int(10 * scale)])
    labels = np.repeat(np.arange(3), np.round(300 * np.array(shares)).astype(int))
    z = world.normal(size=(len(labels), 3)) + 0.3 * own.normal(size=(len(labels), 3))
    z[np.arange(len(labels)), labels] += 2
    z = scale * (z + 0.7 * np.log(shares) + np.array([0, lean, lean]))
    p = np.exp(z - z.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), labels


SETTINGS = {"plain": (0.0, 1.0), "weighted": (1.5, 1.0), "sure": (0.0, 4.0)}


def write(shares: tuple[float, ...] = (0.8, 0.15, 0.05)) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Files of predictions in the working folder, three seeds of each variant."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name, (lean, scale) in SETTINGS.items():
        for seed in range(3):
            p, labels = drawn(seed, lean, scale, shares)
            found.setdefault(name, []).append((p, labels))
            rows = [
                f"{k}.png,{NAMES[y]},{','.join(map(repr, row))}"
                for k, (y, row) in enumerate(zip(labels, p.tolist()))
            ]
            head = "file,label,prob_cat,prob_dog,prob_fox"
            Path(f"{name}-seed{seed}.csv").write_text("\n".join([head, *rows]) + "\n")
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(type_: Type, metrics: str, text: str = STUDY) -> tuple[dict[str, Any], str]:
    Path("s.yaml").write_text(f"{text}metrics: {metrics}\n" if metrics else text)
    code, out, err = type_("run", "s.yaml")
    assert code == 0, err
    return json.loads(Path("runs/s/comparison.json").read_text()), out


@pytest.mark.slow
def test_each_metric_judges_the_contrasts_as_compare_does(type_: Type, here: Path) -> None:
    predictions = write()
    compared, out = run(type_, "[balanced_accuracy, auroc, cross_entropy, accuracy]")
    assert list(compared["by_metric"]) == ["balanced_accuracy", "auroc", "cross_entropy"]
    expected = {
        "balanced_accuracy": lambda p, y: balanced_accuracy_score(y, p.argmax(1)),
        "auroc": lambda p, y: roc_auc_score(y, p, multi_class="ovr"),
        "cross_entropy": lambda p, y: log_loss(y, p),
    }
    for metric, found in compared["by_metric"].items():
        assert found["asked"]
        for name, seeds in predictions.items():
            of = np.mean([expected[metric](p, y) for p, y in seeds])
            assert found["recipes"][name]["value"] == pytest.approx(of, abs=1e-5)
        code, told, _ = type_("compare", "runs/s", "--metric", metric, "--json")
        assert code == 0
        assert found["contrasts"] == json.loads(told)["contrasts"]
    better = compared["by_metric"]["balanced_accuracy"]["contrasts"][0]
    assert better["real"]
    assert better["difference"]["value"] > 0
    assert f"by balanced_accuracy: 1 of 2 differences is real\n    {better['verdict']}" in out
    page = Path("runs/s/report.html").read_text()
    assert 'href="#metrics"' in page
    assert "<h3>Cross-entropy</h3>" in page
    assert "Difference, nats" in page
    assert "Lower is better." in page
    assert "Judged because the classes are unbalanced" not in page


def test_unbalanced_classes_are_judged_by_balanced_accuracy_unasked(type_: Type, here: Path) -> None:
    write()
    compared, out = run(type_, "")
    (metric, found), *others = compared["by_metric"].items()
    assert metric == "balanced_accuracy"
    assert not others
    assert not found["asked"]
    balanced = [each["balanced"]["value"] for each in compared["contrasts"]]
    assert [each["difference"]["value"] for each in found["contrasts"]] == pytest.approx(balanced)
    assert "by balanced_accuracy: 1 of 2 differences is real" in out
    page = Path("runs/s/report.html").read_text()
    assert "Judged because the classes are unbalanced." in page


def test_balanced_classes_without_metrics_leave_no_trace(type_: Type, here: Path) -> None:
    write((1 / 3, 1 / 3, 1 / 3))
    compared, out = run(type_, "")
    assert "by_metric" not in compared
    assert "metrics" not in json.loads(Path("runs/s/study.json").read_text())
    assert "by balanced_accuracy" not in out
    assert "Other metrics" not in Path("runs/s/report.html").read_text()


@pytest.mark.slow
def test_a_variant_without_scores_is_left_out_with_a_sentence(type_: Type, here: Path) -> None:
    write()
    for seed in range(3):
        p, labels = drawn(seed, 0.0, 1.0, (0.8, 0.15, 0.05))
        rows = [f"{k}.png,{NAMES[y]},{NAMES[best]}" for k, (y, best) in enumerate(zip(labels, p.argmax(1)))]
        Path(f"weighted-seed{seed}.csv").write_text("\n".join(["file,label,prediction", *rows]) + "\n")
    compared, out = run(type_, "[auroc, f1@fox, f1@wolf]")
    found = compared["by_metric"]["auroc"]
    assert [(each["a"], each["b"]) for each in found["contrasts"]] == [("plain", "sure")]
    assert found["refused"] == [
        "weighted: auroc needs the scores of all classes, and of this run only the predicted classes are "
        "known; give a file with a column of scores for each class, or use accuracy, balanced_accuracy or "
        "macro_f1"
    ]
    assert "by auroc: weighted: auroc needs the scores" in out
    assert len(compared["by_metric"]["f1@fox"]["contrasts"]) == 2
    nothing = compared["by_metric"]["f1@wolf"]
    assert not nothing["contrasts"]
    assert nothing["refused"] == ["plain, weighted and sure: there is no class 'wolf'; valid: cat, dog, fox"]
    assert "there is no class" in Path("runs/s/report.html").read_text()


@pytest.mark.breadth(3)
@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("[balanced_acuracy]", "s.yaml:6: metrics.0: did you mean 'balanced_accuracy'?"),
        ("[auroc, f1]", "s.yaml:6: metrics.1: did you mean 'macro_f1'?"),
        ("[cost]", "metrics.0: the costs of errors are a table, which a study file does not have; use"),
        ("[robust@0.1]", "metrics.0: robust accuracy is compared by itself wherever the runs are attacked"),
        ("[auroc, auroc]", "s.yaml:6: metrics: auroc is listed twice"),
        ("auroc", "s.yaml:6: metrics: "),
        ("[3]", "s.yaml:6: metrics.0: "),
    ],
)
def test_wrong_metrics_are_told_with_their_line(type_: Type, here: Path, metrics: str, said: str) -> None:
    write()
    for text in (STUDY, "data: digits\nmodel: linear\ntrain: {epochs: 1}\n\n\n"):
        Path("s.yaml").write_text(f"{text}metrics: {metrics}\n")
        code, _, err = type_("run", "s.yaml")
        assert code == 2
        assert said in err
        assert "Traceback" not in err
        assert not Path("runs").exists()


@pytest.mark.slow
def test_a_study_that_is_trained_has_them_too(type_: Type, here: Path) -> None:
    Path("s.yaml").write_text(
        "data: digits\ntrain: {epochs: 1, subset: {images: 200}}\nmodel: linear\n"
        "runs: {slow: {train.lr: 0.0001}, quick: {train.lr: 0.01}}\nmetrics: [macro_f1, brier_calibrated]\n"
    )
    code, out, err = type_("run", "s.yaml", "--quiet")
    assert code == 0, err
    compared = json.loads(Path("runs/s/comparison.json").read_text())
    assert list(compared["by_metric"]) == ["macro_f1", "brier_calibrated"]
    assert "by macro_f1: quick is better than slow by " in out
    assert " points of macro F1 (" in out
    code, _, err = type_("run", "s.yaml", "--quiet", "metrics=[auroc]")
    assert code == 0, err
    compared = json.loads(Path("runs/s/comparison.json").read_text())
    assert list(compared["by_metric"]) == ["auroc"]
