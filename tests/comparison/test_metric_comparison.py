"""`stresslens compare --metric`: verdicts by metrics other than accuracy, as typed and from Python."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

import stresslens as sl
from stresslens.core.files import write_atomically, write_json
from stresslens.core.run_folder import RunFolder

Type = Callable[..., tuple[int, str, str]]
SHARES = (0.8, 0.15, 0.05)


def make(
    path: Path,
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    kind: str = "logits",
    temperature: float | None = None,
    **data: Any,
) -> None:
    folder = RunFolder(path)
    write_atomically(
        folder.predictions("test"),
        lambda file: np.savez(file, scores=logits, labels=labels, index=np.arange(len(labels)), kind=kind),
    )
    record = {
        "format": 1,
        "status": "finished",
        "stages": {},
        "data": {"name": "made", "splits": {"test": "0"}, **data},
        "classes": ["cat", "dog", "fox"],
        "training": {"seconds": 2.0, "epochs": 2},
    }
    if temperature is not None:
        record["calibration"] = {"temperature": temperature, "fitted_on": "validation", "n": 50}
    write_json(folder.record, record)


def drawn(seed: int, *, lean: float, scale: float, n: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """Logits of unbalanced classes, and labels; `lean` is what the rare classes have more."""
    world, own = np.random.default_rng(0), np.random.default_rng([seed, int(10 * lean), int(10 * scale)])
    labels = world.choice(3, size=n, p=SHARES)
    z = world.normal(size=(n, 3)) + 0.3 * own.normal(size=(n, 3))
    z[np.arange(n), labels] += 2
    return scale * (z + 0.7 * np.log(SHARES) + np.array([0, lean, lean])), labels


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """runs/s with plain and weighted (which leans towards the rare classes), and sure, which is as
    plain with logits six times as large; three seeds each."""
    settings = {"plain": (0.0, 1.0), "weighted": (1.5, 1.0), "sure": (0.0, 6.0)}
    for name, (lean, scale) in settings.items():
        for seed in range(3):
            logits, labels = drawn(seed, lean=lean, scale=1.0)
            make(tmp_path / f"runs/s/{name}/seed-{seed}", scale * logits, labels, temperature=scale)
    contrasts = [("all", "plain", "weighted"), ("all", "plain", "sure")]
    study = {"format": 1, "name": "s", "runs": list(settings), "seeds": [0, 1, 2], "contrasts": contrasts}
    write_json(tmp_path / "runs/s/study.json", study)
    return tmp_path / "runs" / "s"


def test_class_weights_are_judged_by_balanced_accuracy(type_: Type, runs: Path) -> None:
    code, out, _ = type_("runs/s/plain", "runs/s/weighted")
    assert "; by balanced accuracy weighted is ahead by " in out
    assert "; highest balanced accuracy: weighted, " in out
    code, out, err = type_("runs/s/weighted", "runs/s/plain", "--metric", "balanced_accuracy")
    assert code == 5
    assert "weighted is better than plain by " in err
    assert " points of balanced accuracy (" in err
    assert "; 3 seeds, 900 images)" in err
    assert "highest mean balanced accuracy: weighted, " in out
    code, out, _ = type_("runs/s/plain", "runs/s/weighted", "--metric", "balanced_accuracy", "--json")
    found = json.loads(out)
    assert code == 0
    expected = []
    for seed in range(3):
        (a, labels), (b, _) = (drawn(seed, lean=lean, scale=1.0) for lean in (0.0, 1.5))
        expected.append(
            balanced_accuracy_score(labels, b.argmax(1)) - balanced_accuracy_score(labels, a.argmax(1))
        )
    contrast = found["contrasts"][0]
    assert contrast["difference"]["value"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert contrast["metric"] == found["metric"] == "balanced_accuracy"
    assert contrast["real"]


def test_a_loss_is_better_where_it_is_lower(type_: Type, runs: Path) -> None:
    words = ("runs/s/plain", "runs/s/sure", "--metric", "cross_entropy")
    code, out, err = type_(*words)
    assert code == 5
    assert err.startswith("stresslens: plain is better than sure by 0.")
    assert " nats of cross-entropy (0." in err
    assert "lowest mean cross-entropy: plain, " in out
    assert "%" not in "".join(line for line in out.splitlines() if line.startswith("│"))
    losses = [
        [log_loss(labels, np.exp(z - np.logaddexp.reduce(z, 1, keepdims=True))) for z in (logits, 6 * logits)]
        for logits, labels in (drawn(seed, lean=0.0, scale=1.0) for seed in range(3))
    ]
    found = json.loads(type_(*words, "--json")[1])
    gain = float(np.mean([b - a for a, b in losses]))
    assert found["contrasts"][0]["difference"]["value"] == pytest.approx(gain, rel=1e-5)
    calibrated = json.loads(type_(*words[:-1], "cross_entropy_calibrated", "--json")[1])
    assert calibrated["contrasts"][0]["difference"]["value"] == pytest.approx(0, abs=1e-6)
    assert "0.01 nats of cross-entropy apart" in type_(*words, "--plan", "--difference", "0.01")[1]


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("macro_f1", "points of macro F1"),
        ("f1@fox", "points of F1 of fox"),
        ("auroc", "in AUROC"),
        ("auroc@fox", "in AUROC of fox"),
        ("brier", "in Brier score"),
        ("brier_calibrated", "in Brier score after temperature scaling"),
        ("ece", "in ECE"),
        ("top2", "points of top-2 accuracy"),
    ],
)
def test_every_metric_has_a_verdict_of_the_same_form(type_: Type, runs: Path, metric: str, says: str) -> None:
    code, out, err = type_("runs/s", "--metric", metric, "--plan")
    assert (code, err) == (0, "")
    verdict = next(line for line in out.splitlines() if says in line and "; 3 seeds, 900 images)" in line)
    assert re.match("(plain|weighted) (is better than|and) (plain|weighted)", verdict)
    code, out, _ = type_("runs/s", "--metric", metric, "--markdown")
    assert code == 0
    assert f"### test {metric}: " in out


def test_costs_of_a_file_and_of_python(type_: Type, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "costs.yaml").write_text("fox: {cat: 10, dog: 3}\n")
    (tmp_path / "costs.csv").write_text("true,cat,dog,fox\ncat,0,1,1\ndog,1,0,1\nfox,10,3,0\n")
    words = ("runs/s/plain", "runs/s/weighted", "--metric", "cost", "--json", "--costs")
    of_yaml, of_csv = (json.loads(type_(*words, file)[1]) for file in ("costs.yaml", "costs.csv"))
    assert of_yaml == of_csv
    costs = np.array([[0, 1, 1], [1, 0, 1], [10, 3, 0]])
    expected = [
        np.mean(costs[labels, b.argmax(1)] - costs[labels, a.argmax(1)])
        for (a, labels), (b, _) in (
            [drawn(seed, lean=lean, scale=1.0) for lean in (0.0, 1.5)] for seed in range(3)
        )
    ]
    (contrast,) = of_yaml["contrasts"]
    assert contrast["difference"]["value"] == pytest.approx(np.mean(expected))
    assert " in cost per image (" in contrast["verdict"]
    found = sl.compare(runs / "plain", runs / "weighted", metric="cost", costs={"fox": {"cat": 10, "dog": 3}})
    assert found["contrasts"][0]["difference"] == contrast["difference"]
    assert "difference in cost per image" in found.plot().svg
    assert "difference" in found.to_latex()


@pytest.mark.parametrize("costs", [5, {"fox": {"cat": "dear"}}, {"fox": 3}, {}, {"fox": {"cat": True}}])
def test_costs_that_python_gives_wrongly(runs: Path, costs: Any) -> None:
    with pytest.raises(sl.ConfigError, match="costs"):
        sl.compare(runs / "plain", runs / "weighted", metric="cost", costs=costs)


@pytest.mark.breadth(3)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fox: {cut: 10}\n", "there is no class 'cut'; did you mean 'cat'"),
        ("fox: 10\n", "costs.yaml:1: fox has 10; costs are {true class"),
        ("fox:\n  cat: -1\n", "costs.yaml:2: fox as cat costs -1; a cost is a number from 0 up"),
        ("fox:\n  cat: dear\n", "costs.yaml:2: fox as cat costs 'dear'"),
        ("[1, 2]\n", "costs.yaml:1: costs are {true class"),
        ("", "costs.yaml:1: costs are {true class"),
        ("{}\n", "no cost is given"),
        (
            "cat: {dog: 0, fox: 0}\ndog: {cat: 0, fox: 0}\nfox: {cat: 0, dog: 0}\n",
            "every cost is 0, so all models cost the same",
        ),
    ],
)
def test_costs_that_are_none(type_: Type, runs: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "costs.yaml").write_text(content)
    code, out, err = type_("runs/s", "--metric", "cost", "--costs", "costs.yaml")
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.slow
def test_what_a_metric_needs_is_said(type_: Type, runs: Path, tmp_path: Path) -> None:
    logits, labels = drawn(0, lean=0.0, scale=1.0)
    answers = np.eye(3)[logits.argmax(1)]
    make(runs / "answers/seed-0", answers, labels, kind="answers")
    make(runs / "votes/seed-0", answers, labels, kind="scores")
    lost, ruled_out = logits.copy(), logits.copy()
    lost[:3] = np.nan
    ruled_out[5, labels[5]] = -np.inf
    make(runs / "lost/seed-0", lost, labels)
    make(runs / "ruled/seed-0", ruled_out, labels)
    make(runs / "one/seed-0", logits[:50], np.zeros(50, np.int64), splits={"test": "1"})
    make(runs / "same/seed-0", logits[:50] + 1, np.zeros(50, np.int64), splits={"test": "1"})

    def told(run: str, metric: str, other: str = "plain") -> str:
        code, out, err = type_(f"runs/s/{other}/seed-0", f"runs/s/{run}/seed-0", "--metric", metric)
        assert code in (0, 5), err
        return out

    def refused(run: str, metric: str, other: str = "plain") -> str:
        code, out, err = type_(f"runs/s/{other}/seed-0", f"runs/s/{run}/seed-0", "--metric", metric)
        assert (code, out) == (2, ""), out
        return err

    for metric in ("ece", "auroc", "top2", "cross_entropy"):
        assert "only the predicted classes are known; give a file with a column of scores" in refused(
            "answers", metric
        )
    assert "one seed each" in told("answers", "macro_f1") or "distinguishable" in told("answers", "macro_f1")
    assert "brier needs probabilities, and these scores are none" in refused("votes", "brier")
    assert "AUROC" in told("votes", "auroc")
    for metric in ("ece", "auroc", "cross_entropy"):
        assert "3 images of 900 without an answer" in refused("lost", metric)
    assert "Brier score" in told("lost", "brier")
    assert "rule out the true class of 1 image (-inf); use brier" in refused("ruled", "cross_entropy")
    assert "Brier score" in told("ruled", "brier")
    assert "and this run has none; use ece" in refused("lost", "ece_calibrated")
    assert "all of one class" in refused("same", "auroc", "one")
    assert "balanced accuracy" in told("same", "balanced_accuracy", "one")
    assert "did you mean 'cross_entropy'" in refused("sure", "log_loss")
    assert "--costs FILE" in refused("sure", "cost")
    code, _, err = type_("runs/s", "--metric", "ece", "--costs", "costs.yaml")
    assert code == 2
    assert "cannot read costs.yaml" in err


@pytest.mark.slow
def test_seeds_with_divisions_of_their_own(type_: Type, runs: Path) -> None:
    for name, lean in (("even", 0.0), ("leaning", 1.5)):
        for seed in range(3):
            logits, labels = drawn(seed, lean=lean, scale=1.0, n=300)
            keep = np.random.default_rng(seed).permutation(300)[:200]
            division = {"kind": "random", "train": 700, "test": 200}
            make(
                runs / f"{name}/seed-{seed}",
                logits[keep],
                labels[keep],
                splits={"test": str(seed)},
                division=division,
            )
    _, out, _ = type_("runs/s/even", "runs/s/leaning")
    assert "; by balanced accuracy leaning is ahead by " in out
    assert "highest balanced accuracy: leaning" in out
    _, out, _ = type_("runs/s/even", "runs/s/leaning", "--metric", "cross_entropy")
    assert "3 divisions, 200 test images each" in out
    code, _, err = type_("runs/s/even", "runs/s/leaning", "--metric", "ece")
    assert code == 2
    assert "ECE is too large on few images" in err
    code, _, err = type_("runs/s/even", "runs/s/plain", "--metric", "macro_f1")
    assert code == 2
    assert "their test images differ" in err
