"""Trackers in a run: each point once however often it is killed, the same bits as without, and no
failure that matters."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import stresslens as sl
from stresslens.config.dotted_keys import settings
from stresslens.config.study_file import variant_config_from
from stresslens.core.data import Data
from stresslens.core.errors import Notice, Problems
from stresslens.core.run_folder import RunFolder
from stresslens.core.tracking import Histograms, Scalars
from stresslens.study import stages
from stresslens.training.loop import Training
from stresslens.training.task import Task
from stresslens.training.tracking import BINS, Tracking, TrackingLog, histogram

OWN = """
import json
import torch


def mine(folder, config, *, fails_at: int = 0):
    class Mine:
        def log(self, entry):
            torch.rand(3)
            kind = type(entry).__name__
            at = getattr(entry, "at", getattr(entry, "epoch", None))
            if at == fails_at != 0:
                raise (SystemExit if at > 1 else RuntimeError)("the server is away")
            with (folder / "told.jsonl").open("a") as file:
                file.write(json.dumps([kind, getattr(entry, "by", None), at]) + "\\n")

        def close(self):
            (folder / "closed").touch()

    return Mine()
"""


DROPPING = """
from torch import nn


def net(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(), nn.Linear(32, classes))
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "ours.py").write_text(OWN)
    return "ours.py:mine"


def tracked(task: Task, *trackers: Any) -> Task:
    return replace(task, config=replace(task.config, track=list(trackers)))


def told(task: Task) -> list[list[Any]]:
    return [
        json.loads(line) for line in (task.folder / "tracker-mine" / "told.jsonl").read_text().splitlines()
    ]


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard reads below a folder."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }


@pytest.mark.slow
def test_a_tracked_run_has_the_same_bits(task_of: Callable[..., Task], tmp_path: Path, own: str) -> None:
    """With a tracker that draws from torch's own random numbers, under dropout, which does too."""
    (tmp_path / "dropping.py").write_text(DROPPING)
    plain, watched = (
        task_of("dropping.py:net", epochs=3, folder=tmp_path / name / "seed-0")
        for name in ("plain", "watched")
    )
    records = [stages.carry_out(plain), stages.carry_out(tracked(watched, own, "tensorboard"))]
    for name in ("metrics.jsonl", "model.safetensors", "predictions/test.npz"):
        assert (plain.folder / name).read_bytes() == (watched.folder / name).read_bytes()
    assert records[0].fingerprint == records[1].fingerprint
    assert records[0].reads_of_test == records[1].reads_of_test == 1
    assert not (plain.folder / "tracking.jsonl").exists()


def test_what_a_tracker_is_told_in_which_order(task_of: Callable[..., Task], own: str) -> None:
    task = tracked(task_of("linear", epochs=2), own)
    stages.carry_out(task)
    first, *figures = told(task)[:11]
    assert first == ["Text", None, None]
    assert [by or kind for kind, by, _ in figures] == ["step", "step", "epoch", "step", "Histograms"] * 2
    assert [at for *_, at in figures] == [1, 2, 1, 2, 1, 3, 4, 2, 4, 2]
    kinds = [kind for kind, *_ in told(task)[11:]]
    assert kinds == ["Graph", "Figure", "Figure", "Pictures", "Pictures", "Embedding", "Outcome"]
    assert (task.folder / "tracker-mine" / "closed").exists()


@pytest.mark.breadth(1)
@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(
    task_of: Callable[..., Task], own: str, fails_at: int
) -> None:
    task = task_of("linear", epochs=2)
    with pytest.warns(
        Notice, match=r"ours\.py:mine is left out and the run continues \(\w+: the server is away\)"
    ) as said:
        record = stages.carry_out(tracked(task, {own: {"fails_at": fails_at}}, "tensorboard"))
    assert len(said) == 1
    assert record.status == "finished"
    assert "track" not in record.stages
    assert [step for step, _ in points(task.folder / "tensorboard")["epoch/loss"]] == [1, 2]
    weights = (task.folder / "model.safetensors").stat().st_mtime_ns

    mended = stages.carry_out(
        tracked(task, own, "tensorboard")
    )  # nothing is trained again, and nothing was lost
    assert "track" in mended.stages
    assert (task.folder / "model.safetensors").stat().st_mtime_ns == weights
    assert [at for kind, by, at in told(task) if by == "epoch"] == [1, 2]
    assert [at for kind, by, at in told(task) if by == "step"] == [1, 2, 2, 3, 4, 4]
    assert [step for step, _ in points(task.folder / "tensorboard")["step/loss"]] == [1, 2, 3, 4]


def test_what_is_no_tracker_and_what_cannot_be_written(task_of: Callable[..., Task], tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("def mine(folder):\n    return 3\n")
    task = task_of("linear", epochs=1)
    task.folder.mkdir(parents=True)
    (task.folder / "tensorboard").write_text("in the way")
    with pytest.warns(Notice) as said:
        record = stages.carry_out(tracked(task, "ours.py:mine", "tensorboard"))
    first, second = (str(warning.message) for warning in said)
    assert "it returned 3; expected an object with log and close" in first
    assert "tensorboard is left out and the run continues (FileExistsError" in second
    assert record.status == "finished"


def test_a_tracker_may_be_asked_for_when_the_run_is_done(task_of: Callable[..., Task]) -> None:
    task = task_of("linear", epochs=3)
    stages.carry_out(task)
    weights = (task.folder / "model.safetensors").stat().st_mtime_ns
    stages.carry_out(tracked(task, "tensorboard"))
    found = points(task.folder / "tensorboard")
    assert [step for step, _ in found["epoch/validation/accuracy"]] == [1, 2, 3]
    assert "scores/test/accuracy" in found
    assert (task.folder / "model.safetensors").stat().st_mtime_ns == weights
    files = {file: file.stat().st_mtime_ns for file in task.folder.rglob("*") if file.is_file()}
    stages.carry_out(tracked(task, "tensorboard"))
    assert files.keys() == {file for file in task.folder.rglob("*") if file.is_file()}
    stages.carry_out(tracked(task))  # and no longer: nothing is done, nothing is lost
    assert found == points(task.folder / "tensorboard")


class Killed(BaseException):
    pass


@pytest.mark.breadth(1)
@pytest.mark.parametrize("saved_at", [4, 5])
def test_going_on_tells_each_point_once(
    task_of: Callable[..., Task], own: str, monkeypatch: pytest.MonkeyPatch, saved_at: int
) -> None:
    """Saved in the midst of the third epoch, or at the very end of the second before it is closed;
    lost in the fourth."""
    keep = Training.after_step

    def kept(training: Training) -> None:
        keep(training)
        if training.iteration == saved_at:
            training.save()
        if training.iteration == 7:
            raise Killed

    task = tracked(task_of("linear", epochs=5), own, "tensorboard")
    with monkeypatch.context() as patched:
        patched.setattr(Training, "after_step", kept)
        with pytest.raises(Killed):
            stages.carry_out(task)
    stages.carry_out(task)
    assert [at for kind, by, at in told(task) if by == "epoch"] == [1, 2, 3, 4, 5]
    assert [at for kind, by, at in told(task) if by == "step"] == [
        1,
        2,
        2,
        3,
        4,
        4,
        5,
        6,
        6,
        7,
        8,
        8,
        9,
        10,
        10,
    ]
    assert [at for kind, by, at in told(task) if kind == "Histograms"] == [1, 2, 3, 4, 5]
    read = points(task.folder / "tensorboard")
    lines = [json.loads(line) for line in (task.folder / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in read["step/loss"]] == list(range(1, 11))
    assert [value for _, value in read["epoch/loss"]] == pytest.approx(
        [line["loss"] for line in lines], rel=1e-7
    )
    assert len(list((task.folder / "tensorboard").glob("events.*"))) == 1


STUDY = """
data: {digits: {subset: 200}}
model: {simple_cnn: {channels: 4, hidden: 16}}
train: {epochs: 80, batch_size: 32, precision: float32, threads: 1, memory_format: contiguous,
  checkpoint_seconds: 0.05}
track: [{tensorboard: {graph: false}}]
"""


@pytest.mark.slow
def test_kill_9_leaves_each_point_once(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    command = [sys.executable, "-m", "stresslens", "run", str(study), "-q", "--out"]
    run = tmp_path / "killed" / "study" / "run" / "seed-0"
    when = random.Random(0)
    for kill in range(4):
        attempt = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
        lines = 10 * (kill + 1)
        while attempt.poll() is None and (not (run / "metrics.jsonl").exists() or run_lines(run) < lines):
            time.sleep(0.005)
        time.sleep(when.random() * 0.05)
        assert attempt.poll() is None, "finished before it could be killed: make the study longer"
        os.kill(attempt.pid, signal.SIGKILL)
        attempt.wait()
    for out in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / out)], check=True, stdout=subprocess.DEVNULL)
    whole = tmp_path / "whole" / "study" / "run" / "seed-0"
    assert len(json.loads((run / "record.json").read_text())["resumed_from"]) == 4
    assert (run / "tracking.jsonl").read_bytes() == (whole / "tracking.jsonl").read_bytes()
    assert points(run / "tensorboard") == points(whole / "tensorboard")
    assert [step for step, _ in points(run / "tensorboard")["epoch/loss"]] == list(range(1, 81))


def run_lines(run: Path) -> int:
    return (run / "metrics.jsonl").read_bytes().count(b"\n")


def test_the_journal_reads_back_as_it_was_written(tmp_path: Path) -> None:
    journal = TrackingLog(RunFolder(tmp_path))
    entries = [
        Scalars("step", 1, {"loss": 0.1}),
        Scalars("epoch", 1, {"loss": 0.2, "validation/accuracy": 1.0}),
        Histograms(1, {"weight": histogram(torch.randn(50))}),
        Scalars("step", 2, {"loss": 0.3}),
    ]
    for entry in entries:
        journal.log(entry)
    with journal.file.open("ab") as file:
        file.write(b'{"step": 3, "val')  # killed
    back = journal.cut(1, 5)
    assert [back[0], back[1], back[3]] == [entries[0], entries[1], entries[3]]
    assert isinstance(back[2], Histograms)
    assert isinstance(entries[2], Histograms)
    assert back[2].of["weight"].edges.tolist() == entries[2].of["weight"].edges.tolist()
    assert back[2].of["weight"].counts.tolist() == entries[2].of["weight"].counts.tolist()
    assert journal.cut(0, 1) == entries[:1]
    assert journal.file.read_text().count("\n") == 1


def test_a_histogram_counts_the_finite_values() -> None:
    found = histogram(torch.tensor([0.0, 1.0, 4.0, float("nan"), float("inf")]))
    assert (found.counts.sum(), found.edges[0], found.edges[-1], len(found.counts)) == (3, 0, 4, BINS)
    constant = histogram(torch.ones(7))
    assert constant.counts.max() == constant.counts.sum() == 7
    assert histogram(torch.tensor([float("nan")])).counts.sum() == 0


def test_long_trainings_are_told_of_at_most_a_thousand_iterations(tmp_path: Path, own: str) -> None:
    tracking = Tracking([own], RunFolder(tmp_path), tmp_path)
    tracking.begin(epoch=0, step=0, epochs=250, steps=50_001)
    net = torch.nn.Linear(2, 2)
    for step in range(1, 50_002):
        tracking.after_step(step, 0.5, 0.1)
    for epoch in range(1, 251):
        tracking.after_epoch(200 * epoch, {"epoch": epoch, "loss": 0.5}, net)
    tracking.close()
    lines = [json.loads(line) for line in (tmp_path / "tracker-mine" / "told.jsonl").read_text().splitlines()]
    assert [at for _, by, at in lines if by == "step"] == list(range(51, 50_002, 51))
    assert [at for kind, _, at in lines if kind == "Histograms"] == list(range(3, 251, 3))
    assert [at for _, by, at in lines if by == "epoch"] == list(range(1, 251))


def test_settings_go_by_the_names_that_override_them(tmp_path: Path) -> None:
    config = {
        "run": "a",
        "model": {"mlp": {"widths": [8, 4], "dropout": 0.5}},
        "input": {"size": None, "normalize": "standard"},
        "train": {
            "lr": 0.1,
            "optimizer": "adam",
            "schedule": {"warmup": {"share": 0.2, "then": "cosine"}},
            "augment": ["flip"],
        },
    }
    assert dict(settings(config)) == {
        "run": "a",
        "model": "mlp",
        "model.widths": "[8, 4]",
        "model.dropout": 0.5,
        "input.normalize": "standard",
        "train.lr": 0.1,
        "train.optimizer": "adam",
        "train.schedule": "warmup",
        "train.schedule.share": 0.2,
        "train.schedule.then": "cosine",
        "train.augment": '["flip"]',
    }


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (["tensorbord"], r"track\.0: no tracker is called 'tensorbord'; did you mean 'tensorboard'\?"),
        (
            [{"tensorboard": {"grph": True}}],
            r"track\.0\.tensorboard\.grph: tensorboard has no option 'grph'; did you mean 'graph'",
        ),
        (["tensorboard", {"tensorboard": {}}], r"track\.1: tensorboard is already in the list"),
        ("tensorboard", r"track: input should be a list, as \['tensorboard'\], got 'tensorboard'"),
    ],
)
def test_what_cannot_be_tracked_is_told_before_anything_is_trained(
    tmp_path: Path, track: Any, message: str
) -> None:
    with pytest.raises(Problems, match=message):
        variant_config_from({"track": track}, tmp_path)


def test_from_python(small: Data, tmp_path: Path) -> None:
    run = sl.train("linear", small, epochs=1, precision="float32", out=tmp_path, track="tensorboard")
    assert "epoch/loss" in points(run.folder / "tensorboard")


def test_the_tracker_of_the_manual_writes_its_table(task_of: Callable[..., Task], tmp_path: Path) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")
    (tmp_path / "ours.py").write_text(manual.partition("```python\n# ours.py\n")[2].partition("```")[0])
    task = tracked(task_of("linear", epochs=2), {"ours.py:tsv": {"digits": 6}})
    stages.carry_out(task)
    lines = [json.loads(line) for line in (task.folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row.split("\t") for row in (task.folder / "tracker-tsv" / "figures.tsv").read_text().splitlines()]
    assert [row for row in rows if row[1] == "loss"] == [
        [str(k["epoch"]), "loss", f"{k['loss']:.6f}"] for k in lines
    ]
