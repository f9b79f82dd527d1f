"""`stresslens compare`: what it takes, what it refuses by name, and its exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresslens.core.files import read_json, write_atomically, write_json
from stresslens.core.layer_table import LayerTable
from stresslens.core.run_folder import RunFolder

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """runs/first with a good, an equally good and a bad recipe of three seeds each, and runs/second
    with a good one."""
    random = np.random.default_rng(0)
    hard = random.random(400)
    for study, runs in (("first", {"good": 0.9, "equal": 0.9, "bad": 0.7}), ("second", {"good": 0.9})):
        for run, accuracy in runs.items():
            for seed in range(3):
                make(
                    tmp_path / "runs" / study / run / f"seed-{seed}",
                    hard + 0.05 * random.standard_normal(400) < accuracy,
                )
        contrasts = [("all", "good", other) for other in runs if other != "good"]
        described = {
            "format": 1,
            "name": study,
            "runs": list(runs),
            "seeds": [0, 1, 2],
            "contrasts": contrasts,
        }
        write_json(tmp_path / "runs" / study / "study.json", described)
    return tmp_path / "runs"


def make(
    path: Path, right: np.ndarray, *, labels: np.ndarray | None = None, status: str = "finished", **data: Any
) -> None:
    folder = RunFolder(path)
    truth = np.arange(len(right)) % 3 if labels is None else labels
    scores = np.eye(3)[np.where(right, truth, (truth + 1) % 3)]
    if status == "finished":
        for split in ("test", "validation"):
            write_atomically(
                folder.predictions(split),
                lambda file: np.savez(
                    file, scores=scores, labels=truth, index=np.arange(len(truth)), kind="logits"
                ),
            )
    record = {
        "format": 1,
        "status": status,
        "stages": {},
        "data": {"name": "made", "splits": {"test": "0"}, **data},
    }
    write_json(
        folder.record,
        record
        | {"training": {"seconds": 2.0, "epochs": 2}, "layers": LayerTable((), 10, 10, 0, 0, 0).as_json()},
    )


def test_recipes_over_their_seeds(type_: Type, studies: Path) -> None:
    code, out, err = type_("runs/first/good", "runs/first/equal", "runs/first/bad")
    assert code == 5
    assert "good is better than bad by" in out
    assert "good and equal are not distinguishable" in out
    assert "\n    these 3 seeds and 400 images are enough to tell " in out or "\n    telling " in out
    assert "3 seeds, 400 images" in out
    assert "good and bad have equally many parameters" in out
    assert err.startswith("stresslens: good is better than bad by")
    assert "equal" not in err
    code, out, err = type_("runs/first/bad", "runs/first/good")
    assert (code, err) == (0, "")
    assert "good is better than bad" in out


def test_recipes_of_different_studies_on_the_same_images(type_: Type, studies: Path) -> None:
    code, out, _ = type_("runs/first/good", "runs/second/good", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["kind"] == "recipe"
    assert list(found["recipes"]) == ["first/good", "second/good"]
    assert found["regressions"] == []


def test_runs_are_about_these_weights(type_: Type, studies: Path) -> None:
    code, out, _ = type_("runs/first/good/seed-0", "runs/first/bad/seed-2", "--json")
    found = json.loads(out)
    assert code == 5
    assert found["kind"] == "run"
    assert "one seed each, so this is about these weights" in found["regressions"][0]
    assert found["contrasts"][0]["a"] == "good/seed-0"
    a, b = (
        RunFolder(studies / "first" / run).load_predictions("test") for run in ("good/seed-0", "bad/seed-2")
    )
    first, second = (each["scores"].argmax(1) == each["labels"] for each in (a, b))
    from scipy.stats import binomtest

    only = int((first & ~second).sum()), int((second & ~first).sum())
    assert found["contrasts"][0]["p"] == pytest.approx(binomtest(only[0], sum(only)).pvalue)


def test_a_studys_contrasts_again_pass_no_gate(type_: Type, studies: Path) -> None:
    code, out, err = type_("runs/first")
    assert (code, err) == (0, "")
    assert "good is better than bad" in out
    code, out, _ = type_("runs/first", "--split", "validation", "--json")
    assert json.loads(out)["split"] == "validation"


def test_plan_and_difference(type_: Type, studies: Path) -> None:
    asked = "to tell 2 points apart", "telling 2 points apart would take"
    code, out, _ = type_("runs/first", "--difference", "2")
    assert code == 0
    assert sum(out.count(words) for words in asked) == 2
    told = type_("runs/first")[1].count(" apart"), type_("runs/first", "--plan")[1].count(" apart")
    assert told == (1, 2)


@pytest.mark.breadth(4)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs/first/good"], "runs/first/good is a variant; give at least one more"),
        (["runs/first/good", "runs/first/good/"], "given twice"),
        (["runs/first/good", "runs/first/bad/seed-0"], "runs/first/bad/seed-0 is a run"),
        (["runs/first", "runs/second"], "compare takes one study"),
        (["runs"], "runs is not the folder of a run"),
        (["runs/first/good", "nowhere"], "there is no nowhere"),
        (["runs/first", "--metric", "f1"], "did you mean 'macro_f1'?"),
        (["runs/first", "--split", "train"], "expected test or validation"),
        (["runs/first", "--difference", "0"], "above 0"),
        (["runs/first", "--difference", "nan"], "above 0"),
        ([], "folders"),
    ],
)
def test_what_is_refused(type_: Type, studies: Path, words: list[str], message: str) -> None:
    code, out, err = type_(*words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_other_images_are_refused_by_name_and_kind(type_: Type, studies: Path) -> None:
    right = np.ones(400, dtype=bool)
    make(studies / "first" / "short" / "seed-0", right[:100], name="small")
    make(
        studies / "first" / "relabelled" / "seed-0",
        right,
        labels=(np.arange(400) + (np.arange(400) > 397)) % 3,
    )
    make(studies / "first" / "repainted" / "seed-0", right, splits={"test": "1"})
    code, _, err = type_(
        *(f"runs/first/{run}/seed-0" for run in ("good", "short", "relabelled", "repainted", "equal"))
    )
    assert code == 2
    assert err.splitlines() == [
        (
            "good/seed-0 and short/seed-0 were not compared: their test images differ "
            "(400 test images of made against 100 of small)"
        ),
        "good/seed-0 and relabelled/seed-0 were not compared: "
        "their test images differ (2 of 400 images of made differ in label, the first at 398)",
        "good/seed-0 and repainted/seed-0 were not compared: their test images differ "
        "(as many images and the same labels, but other pixels: made, fingerprints 0 and 1)",
    ]


def test_unfinished_runs(type_: Type, studies: Path) -> None:
    make(studies / "first" / "good" / "seed-3", np.ones(400, dtype=bool), status="stopped")
    make(studies / "first" / "stopped" / "seed-0", np.ones(400, dtype=bool), status="stopped")
    code, _, err = type_("runs/first/good/seed-0", "runs/first/good/seed-3")
    assert code == 2
    assert "runs/first/good/seed-3 is not finished (stopped)" in err
    code, _, err = type_("runs/first/good", "runs/first/stopped")
    assert code == 2
    assert "runs/first/stopped has no finished seed" in err
    assert "3 seeds" in type_("runs/first/good", "runs/first/equal")[1]
    shutil.move(studies / "second" / "good" / "seed-0", studies / "second" / "good" / "seed-7")
    for seed in (1, 2):
        shutil.rmtree(studies / "second" / "good" / f"seed-{seed}")
    code, _, err = type_("runs/first/good", "runs/second/good")
    assert code == 2
    assert "no finished seed in common" in err


def test_a_damaged_record_is_named(type_: Type, studies: Path) -> None:
    (studies / "first" / "bad" / "seed-1" / "record.json").write_text("{")
    code, _, err = type_("runs/first/good", "runs/first/bad")
    assert code == 2
    assert "bad/seed-1/record.json" in err
    assert read_json(studies / "first" / "good" / "seed-0" / "record.json")["status"] == "finished"
