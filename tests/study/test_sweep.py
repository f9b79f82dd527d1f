"""Sweeps from the study file to the tested best: what is asked, what test is read, what is left of
it after a kill."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_sweep import swept, written

from stresslens.comparison.sweep_file import SweepFile
from stresslens.config import study_file
from stresslens.core.errors import ConfigError, TrainingDiverged
from stresslens.core.run_folder import RunFolder
from stresslens.study import pipeline, stages
from stresslens.training.task import Task


def asked(folder: Path) -> list[Any]:
    return [trial["settings"] for trial in swept(folder)["trials"]]


def test_the_best_by_validation_is_trained_for_every_seed_and_only_it_is_tested(tmp_path: Path) -> None:
    lines: list[str] = []
    study = written(
        tmp_path,
        repeats=2,
        corruptions=["noise"],
        robustness={"radii": 0.1, "protocol": ["fgsm"], "images": 10, "audit": False},
    )
    folder = pipeline.run(study, out=tmp_path, say=lines.append)
    table = swept(folder)
    assert SweepFile.read(folder / "run" / "sweep.json").as_json() == table
    assert [trial["status"] for trial in table["trials"]] == ["finished"] * 5
    assert all(trial["settings"]["train.batch_size"] <= 48 for trial in table["trials"])
    values = [trial["value"]["value"] for trial in table["trials"]]
    assert table["best"] == values.index(max(values))
    trials = sorted((folder / "run" / "trials").glob("*/record.json"))
    assert len(trials) == 5
    for path in trials:
        record = json.loads(path.read_text())
        assert record["reads_of_test"] == 0
        assert set(record["data"]["splits"]) == {"train", "validation"}
        assert set(record["stages"]) == {"training", "predictions"}
        assert [file.name for file in (path.parent / "predictions").iterdir()] == ["validation.npz"]
    best = folder / "run" / "trials" / f"{table['best']:03d}"
    first, second = (folder / "run" / f"seed-{seed}" for seed in (0, 1))
    assert (first / "model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()
    assert (first / "metrics.jsonl").read_bytes() == (best / "metrics.jsonl").read_bytes()
    for run in (first, second):
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["train"]["lr"] == asked(folder)[table["best"]]["train.lr"]
        assert config["corruptions"] == ["noise"]
        assert json.loads((run / "record.json").read_text())["reads_of_test"] == 3
    assert len(lines) == 7
    assert lines[4].startswith("run: trial 4 (5 of 5 ended): accuracy on validation ")
    assert "best so far trial" in lines[4]
    assert (
        lines[5]
        == "run: 5 different trials are too few to tell which settings matter; 8 are the least, 20 are better"
    )
    assert lines[6].startswith(f"run: continues with trial {table['best']}, the best on validation: train.")
    page = (folder / "report.html").read_text()
    assert "trial-004" not in page


@pytest.mark.slow
def test_the_same_seed_asks_the_same_trials_however_many_at_a_time(tmp_path: Path) -> None:
    one = pipeline.run(written(tmp_path), out=tmp_path / "one")
    two = pipeline.run(written(tmp_path), out=tmp_path / "two", jobs=2)
    other = pipeline.run(written(tmp_path, sweep={"seed": 1, "trials": 2}), out=tmp_path / "other")
    assert asked(one) == asked(two)
    assert asked(one)[:2] != asked(other)
    assert [trial["value"] for trial in swept(one)["trials"]] == [
        trial["value"] for trial in swept(two)["trials"]
    ]


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", pytest.param("tpe", marks=pytest.mark.slow), "halving"])
def test_cut_off_anywhere_it_goes_on_to_the_same_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Cut off before, between and after what a trial leaves: the journal, its folder, sweep.json."""
    sweep = {"method": method, "trials": 12 if method == "tpe" else 5}
    whole = pipeline.run(written(tmp_path, sweep=sweep), out=tmp_path / "whole")
    carry_out = stages.carry_out
    for cut in (1, 2, 3, 2):
        count = 0

        def cutting(task: Task, show: Any, done: Any = None, cut: int = cut) -> Any:
            nonlocal count
            count += 1
            if count == cut and cut % 2:
                raise Killed
            record = carry_out(task, show, done)
            if count == cut:
                raise Killed
            return record

        monkeypatch.setattr(stages, "carry_out", cutting)
        with pytest.raises(Killed):
            pipeline.run(written(tmp_path, sweep=sweep), out=tmp_path / "cut")
    monkeypatch.setattr(stages, "carry_out", carry_out)
    journal = tmp_path / "cut" / "s" / "run" / "trials" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"event": "beg')  # half a line, as a kill leaves it
    cut_off = pipeline.run(written(tmp_path, sweep=sweep), out=tmp_path / "cut")
    mine, theirs = swept(cut_off), swept(whole)
    for table in (mine, theirs):
        for trial in table["trials"]:
            trial["seconds"] = None
    assert mine == theirs
    for path in sorted((whole / "run" / "trials").glob("*/model.safetensors")):
        assert path.read_bytes() == (cut_off / path.relative_to(whole)).read_bytes()


@pytest.mark.slow
def test_halving_keeps_the_best_and_a_continued_trial_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    options = {"epochs": 9, "schedule": "cosine", "augment": ["flip"], "ema": 0.9}
    study = written(
        tmp_path,
        train=options,
        sweep={"method": "halving", "trials": 9, "halving": {"epochs": 1, "factor": 3}},
    )
    folder = pipeline.run(study, out=tmp_path / "halving")
    trials = swept(folder)["trials"]
    assert sorted(trial["epochs"] for trial in trials) == [1] * 6 + [3] * 2 + [9]
    assert sorted(trial["status"] for trial in trials) == ["finished"] + ["left out"] * 8
    logs = [RunFolder(folder / "run" / "trials" / f"{trial['number']:03d}") for trial in trials]
    first = [log.read_lines(log.metrics)[0]["validation"]["accuracy"] for log in logs]
    order = sorted(range(9), key=lambda number: (-first[number], number))
    assert {trial["number"] for trial in trials if trial["epochs"] > 1} == set(order[:3])

    plain = pipeline.run(written(tmp_path, train=options, sweep={"trials": 9}), out=tmp_path / "plain")
    for trial, log in zip(trials, logs):
        assert trial["settings"] == asked(plain)[trial["number"]]
        whole = RunFolder(plain / "run" / "trials" / log.path.name)
        lines = whole.metrics.read_bytes().splitlines()
        assert log.metrics.read_bytes().splitlines() == lines[: trial["epochs"]]
        if trial["epochs"] == 9:
            assert log.weights.read_bytes() == whole.weights.read_bytes()
            states = [torch.load(each.checkpoint, weights_only=True) for each in (log, whole)]
            assert all(
                states[0]["average"][name].equal(value) for name, value in states[1]["average"].items()
            )


@pytest.mark.slow
def test_tpe_asks_near_what_did_well(tmp_path: Path) -> None:
    space = {"train.lr": {"from": 1e-6, "to": 1.0, "log": True}}
    sweep = {"method": "tpe", "trials": 30, "space": space, "where": None, "metric": "loss"}
    trials = swept(pipeline.run(written(tmp_path, sweep=sweep, train={"epochs": 2}), out=tmp_path))["trials"]
    values = [trial["value"]["value"] for trial in trials]
    assert sum(values[20:]) / 10 < sum(values[:10]) / 10  # the first ten are drawn at random
    assert trials[values.index(min(values))]["number"] == swept(tmp_path / "s")["best"]


@pytest.mark.slow
def test_listed_settings_are_each_tried_once(tmp_path: Path) -> None:
    listed = [
        {"train.lr": 0.1},
        {"train.optimizer": "sgd", "train.lr": 1e-5},
        {"model": {"mlp": {"widths": [8]}}},
    ]
    folder = pipeline.run(
        written(tmp_path, sweep={"settings": listed, "space": None, "trials": None, "where": None}),
        out=tmp_path,
    )
    assert asked(folder) == listed
    assert swept(folder)["best"] != 1


@pytest.mark.slow
def test_a_trial_that_diverges_is_worse_than_any_and_the_others_go_on(tmp_path: Path) -> None:
    listed = [{"train.lr": 1e30, "train.optimizer": "sgd"}, {"train.lr": 0.01}]
    sweep = {"settings": listed, "space": None, "trials": None, "where": None}
    study = written(tmp_path, sweep=sweep, train={"loss": "mse"})
    folder = pipeline.run(study, out=tmp_path)
    assert [trial["status"] for trial in swept(folder)["trials"]] == ["diverged", "finished"]
    study = written(tmp_path, sweep=sweep | {"settings": listed[:1]}, train={"loss": "mse"}, study="all")
    with pytest.raises(TrainingDiverged, match="every trial of the sweep diverged"):
        pipeline.run(study, out=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"digits": {"validation": 0}}},
            "trials are compared on the validation split, which digits does not have here",
        ),
        (
            {"sweep": {"metric": "robust"}},
            "robust needs train.select: robust, or an adversarial-training objective",
        ),
        (
            {
                "sweep": {
                    "space": {
                        "train.objective": ["supervised", {"adversarial": {"norm": "linf", "eps": 0.1}}]
                    },
                    "where": None,
                }
            },
            "some trials use adversarial training and others do not",
        ),
    ],
    ids=["no validation", "no radius", "mixed"],
)
def test_without_a_metric_nothing_is_trained(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline.run(written(tmp_path, **changes), out=tmp_path)
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.slow
def test_another_sweep_in_the_same_place_is_refused(tmp_path: Path) -> None:
    pipeline.run(written(tmp_path, sweep={"trials": 2}), out=tmp_path)
    for changes in ({"sweep": {"seed": 3}}, {"sweep": {"trials": 2}, "train": {"epochs": 5}}):
        with pytest.raises(ConfigError, match=r"holds another sweep \(what differs: (sweep|recipe)\)"):
            pipeline.run(written(tmp_path, **changes), out=tmp_path)


@pytest.mark.slow
def test_what_trials_do_not_share_with_the_run_is_trained_anew(tmp_path: Path) -> None:
    study = written(tmp_path, sweep={"trials": 2}, train={"watch": ["validation", "test"]})
    folder = pipeline.run(study, out=tmp_path)
    lines = RunFolder(folder / "run" / "trials" / "000")
    assert all("test" not in line for line in lines.read_lines(lines.metrics))
    run = RunFolder(folder / "run" / "seed-0")
    assert all("test" in line for line in run.read_lines(run.metrics))


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'stresslens\[ray\]'"):
        pipeline.run(study_file.with_executor(written(tmp_path), "ray"), out=tmp_path)
    with pytest.raises(ConfigError, match="no executor is called 'rai'; did you mean 'ray'"):
        study_file.with_executor(written(tmp_path), "rai")
