"""Ensembles of trained runs as runs: in a study, by a command, from Python, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.saved_model import open_model

SMALL = {"digits": {"subset": 100}}
TRAIN = {"epochs": 1, "lr": 0.01, "precision": "float32", "threads": 1}
VALUES: dict[str, Any] = {
    "study": "joint",
    "data": SMALL,
    "model": "linear",
    "train": TRAIN,
    "repeats": 2,
    "runs": {
        "both": {"model": {"ensemble": {"runs": ["a", "b"], "average": "probabilities"}}},
        "a": {},
        "b": {"model": {"mlp": {"widths": [8]}}},
    },
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ensembles")
    sl.run(VALUES, out=place, progress=False)
    sl.train("knn", SMALL, out=place / "python", name="neighbours", progress=False)
    return place


def logits(folder: Path, split: str = "test") -> np.ndarray:
    scores: np.ndarray = RunFolder(folder).load_predictions(split)["scores"].astype(np.float64)
    return scores


def probabilities(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


@pytest.mark.slow
def test_in_a_study_it_has_one_run_of_all_seeds_of_its_members(out: Path) -> None:
    study = out / "joint"
    assert [path.name for path in (study / "both").iterdir()] == ["seed-0"]
    record = json.loads((study / "both/seed-0/record.json").read_text())
    assert record["status"] == "finished"
    assert record["training"]["epochs"] == 0
    members = record["ensemble"]["members"]
    assert [(each["run"], each["seed"]) for each in members] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    trained = json.loads((study / "b/seed-1/record.json").read_text())
    assert members[3]["fingerprint"] == trained["fingerprint"]
    described = json.loads((study / "study.json").read_text())
    assert described["own_seeds"] == {"both": [0]}
    folders = [study / run / f"seed-{seed}" for run in "ab" for seed in (0, 1)]
    mean = np.mean([probabilities(logits(folder)) for folder in folders], 0)
    assert np.allclose(np.exp(logits(study / "both/seed-0")), mean, atol=1e-5)
    accuracies = [each["value"] for each in record["ensemble"]["splits"]["test"]["accuracy"]]
    own = [
        json.loads((f / "record.json").read_text())["scores"]["test"]["accuracy"]["value"] for f in folders
    ]
    assert accuracies == pytest.approx(own)


def test_the_folder_is_enough_without_its_members(out: Path, tmp_path: Path) -> None:
    whole = open_model(RunFolder(out / "joint/both/seed-0"))
    copy = tmp_path / "alone"
    shutil.copytree(out / "joint/both/seed-0", copy)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(open_model(RunFolder(copy))(x), whole(x))
    kept = load_file(copy / "model.safetensors")
    assert torch.equal(
        kept["members.2.net.1.weight"], load_file(out / "joint/b/seed-0/model.safetensors")["1.weight"]
    )


@pytest.mark.slow
def test_the_same_study_again_does_nothing_and_changed_members_are_refused(out: Path, tmp_path: Path) -> None:
    place = tmp_path / "again"
    shutil.copytree(out, place)
    card = place / "joint/both/seed-0/model.safetensors"
    before = card.stat().st_mtime_ns
    sl.run(VALUES, out=place, progress=False)
    assert card.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="delete the folder to start again"):
        sl.run(VALUES | {"repeats": 3}, out=place, progress=False)


def test_a_command_makes_one_of_runs_and_of_an_estimator(out: Path) -> None:
    runs = [str(out / "joint/a"), str(out / "python/neighbours/seed-0")]
    done = CliRunner().invoke(app, ["ensemble", *runs, "--out", str(out), "--average", "logits", "--json"])
    assert done.exit_code == 0, done.output
    folder = out / "ensembles/a-and-1-more/seed-0"
    record = json.loads((folder / "record.json").read_text())
    assert [each["model"] for each in record["ensemble"]["members"]] == ["linear", "linear", "knn"]
    temperature = record["ensemble"]["members"][2]["temperature"]
    assert temperature != 1
    each = [
        logits(out / "joint/a/seed-0"),
        logits(out / "joint/a/seed-1"),
        logits(Path(runs[1])) / temperature,
    ]
    assert np.allclose(logits(folder), np.mean(each, 0), atol=1e-5)
    shutil.rmtree(out / "python/neighbours/seed-0/examples")
    images = torch.rand(2, 1, 8, 8)
    assert torch.isfinite(open_model(RunFolder(folder))(images)).all()
    assert "ensemble" in (folder / "report.html").read_text()


def test_from_python_of_one_run_it_is_that_run(out: Path) -> None:
    study = sl.open(out / "joint")
    member = next(each for each in study.runs if (each.variant, each.seed) == ("b", 1))
    run = sl.ensemble(member, out=out, name="alone", progress=False)
    assert run.folder == out / "ensembles/alone/seed-0"
    assert np.allclose(probabilities(logits(run.folder)), probabilities(logits(member.folder)), atol=1e-6)
    assert run.record["ensemble"]["splits"]["test"]["disagreement"]["value"] == 0
    assert sl.attack(run, radii=0.1, protocol=["fgsm"], n_images=5, audit=False) is not None


def test_what_does_not_fit_together_is_refused_in_a_sentence(out: Path, tmp_path: Path) -> None:
    a = out / "joint/a"
    numbers = np.random.default_rng(0)
    data = sl.Data.from_arrays(numbers.random((40, 1, 8, 8), np.float32), np.arange(40) % 4)
    other = sl.train("linear", data, out=tmp_path / "other", progress=False, **TRAIN)
    for runs, why in (
        ([], "at least one run"),
        ([tmp_path / "nowhere"], "there is no such folder"),
        ([out / "joint"], "name a variant in it"),
        ([a, a / "seed-1"], "is named twice"),
        ([a, other], "need the same classes"),
        ([out / "joint/both"], "is an ensemble itself"),
        (sl.open(out / "joint"), "name one of its variants"),
    ):
        with pytest.raises(ConfigError, match=why):
            sl.ensemble(runs, out=tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match="'probabilities' or 'logits'"):
        sl.ensemble(a, out=tmp_path / "out", average="median", progress=False)
    with pytest.raises(ConfigError, match="no run of the study is called 'c'"):
        sl.run(
            VALUES | {"runs": {"x": {"model": {"ensemble": {"runs": ["c"]}}}}}, out=tmp_path, progress=False
        )
    done = CliRunner().invoke(app, ["ensemble", str(tmp_path)])
    assert "no config.yaml" in str(done.exception)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
def test_members_of_another_shape_and_of_folds_are_refused(out: Path, tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    data = sl.Data.from_arrays(numbers.random((60, 1, 6, 6), np.float32), np.arange(60) % 10)
    other = sl.train("linear", data, out=tmp_path / "other", progress=False, **TRAIN)
    with pytest.raises(ConfigError, match="takes images of 1×6×6"):
        sl.ensemble([out / "joint/a", other], out=tmp_path / "out", progress=False)
    folds = VALUES | {"repeats": {"folds": 2}, "runs": {"a": {}}, "study": "folds"}
    sl.run(folds, out=tmp_path, progress=False)
    with pytest.raises(ConfigError, match="divided the data anew"):
        sl.ensemble(tmp_path / "folds/a", out=tmp_path / "out", progress=False)


@pytest.mark.slow
def test_members_that_were_trained_on_held_out_images_are_found(tmp_path: Path) -> None:
    """Of validation images it is refused, of test images it is a finding, of copies within the data it is
    neither."""
    values = {**VALUES, "repeats": 1, "data": {"digits": {"seed": 42, "validation": 0.25}}}
    runs = {"a": {}, "other": {"data": {"digits": {"seed": 7, "validation": 0.25}}}}
    study = sl.run({**values, "study": "s", "runs": runs}, out=tmp_path, progress=False).folder
    with pytest.raises(ConfigError, match=r"of the 449 validation images are training images of .*other"):
        sl.ensemble([study / "a", study / "other"], out=tmp_path / "out", progress=False)
    test_only = {**values, "data": {"digits": {"validation": 0}}}
    runs = {"a": {}, "other": {"data": {"digits": {"seed": 7, "validation": 0}}}}
    study = sl.run({**test_only, "study": "t", "runs": runs}, out=tmp_path, progress=False).folder
    made = sl.ensemble([study / "a", study / "other"], out=tmp_path / "out", progress=False)
    (leak,) = [f for f in made.record["data"]["findings"] if f["audit"] == "trained on before"]
    assert "test images are training images of" in leak["evidence"]
    assert "a member of the ensemble" in leak["evidence"]


@pytest.mark.slow
def test_images_that_the_first_member_sets_aside_calibrate_the_ensemble(tmp_path: Path) -> None:
    values = {**VALUES, "repeats": 1, "data": "digits", "runs": {"b": {}}, "study": "plain"}
    plain = sl.run(values, out=tmp_path, progress=False).folder / "b"
    runs = {"a": {"train.calibration": 0.5}, "both": {**VALUES["runs"]["both"], "train.calibration": 0.25}}
    runs["both"]["model"] = {"ensemble": {"runs": ["a"]}}
    study = sl.run({**values, "runs": runs, "study": "aside"}, out=tmp_path, progress=False).folder
    made = sl.ensemble([study / "a", plain], out=tmp_path / "out", progress=False)
    member = json.loads((study / "a/seed-0/record.json").read_text())["data"]
    assert made.record["data"]["splits"] == member["splits"]
    assert made.record["data"]["sizes"]["calibration"] == member["sizes"]["calibration"] == 180
    assert RunFolder(made.folder).predictions("calibration").is_file()
    other = json.loads((study / "both/seed-0/record.json").read_text())["data"]
    assert other["sizes"]["calibration"] == 90
