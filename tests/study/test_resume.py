"""kill -9 at any moment, the same command again: the same bits."""

from __future__ import annotations

import json
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from several import PROCESSES

from stresslens.config import study_file
from stresslens.study import pipeline

STUDY = """
data: {digits: {subset: 300}}
model: {simple_cnn: {batch_norm: true, channels: 4, hidden: 16}}
train:
  epochs: 60
  batch_size: 32
  lr: 0.01
  optimizer: momentum
  schedule: {warmup: {share: 0.2, then: cosine}}
  augment: [flip, {crop: {padding: 1}}, {cutout: {size: 2}}, mixup]
  ema: 0.95
  clip: 1.0
  accumulate: 2
  precision: float32
  threads: 1
  memory_format: contiguous
  checkpoint_seconds: 0.05
"""
KILLS = 20


def carry_out(study: Path, out: Path) -> None:
    """What `stresslens run` does, in a process that can be killed without paying for its imports
    each time."""
    torch.set_num_threads(1)
    pipeline.run(study_file.read_study(study), out=out)


def start(study: Path, out: Path) -> BaseProcess:
    process = PROCESSES.Process(target=carry_out, args=(study, out))
    process.start()
    return process


def finish(process: BaseProcess) -> None:
    process.join(240)
    assert process.exitcode == 0


def kill(process: BaseProcess, kills: int) -> None:
    """Kills a study that has been killed so many times before."""
    if not process.is_alive():
        pytest.fail(f"finished after {kills} kills: make the study longer")
    process.kill()
    process.join()


def same_files(run: Path, reference: Path) -> None:
    for name in ("metrics.jsonl", "model.safetensors", "model.json", "config.yaml"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name


def logged(run: Path) -> int:
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_killed_twenty_times_equals_never_killed(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY)
    finish(start(study, tmp_path / "whole"))

    run = tmp_path / "killed" / "study" / "run" / "seed-0"
    when = random.Random(0)
    kills = 0
    while kills < KILLS:
        attempt = start(study, tmp_path / "killed")
        # told by the metrics file: so many more epochs than the last attempt had kept, then at once
        target = min(58, logged(run) + when.randint(1, 4)) if kills % 2 else None
        before = logged(run)
        while attempt.is_alive():
            now = logged(run)
            if (target is not None and now >= target) or (target is None and now not in (before, 0)):
                break
            time.sleep(when.random() * 0.002)
        kill(attempt, kills)
        kills += 1
    finish(start(study, tmp_path / "killed"))

    reference = tmp_path / "whole" / "study" / "run" / "seed-0"
    same_files(run, reference)
    epochs = [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, 61))
    records = [json.loads((folder / "record.json").read_text()) for folder in (run, reference)]
    assert records[0]["training"]["chosen_epoch"] == records[1]["training"]["chosen_epoch"]
    assert records[0]["training"]["steps"] == records[1]["training"]["steps"] == 60 * 5
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (run, reference)]
    compared = 0
    for part in ("net", "average", "best"):
        assert states[0][part].keys() == states[1][part].keys()
        for name, value in states[0][part].items():
            assert value.equal(states[1][part][name]), (part, name)
            compared += 1
    assert compared > 40
    assert states[0]["schedule"] == states[1]["schedule"]
    buffers = [
        [entry["momentum_buffer"] for entry in state["optimizer"]["state"].values()] for state in states
    ]
    assert all(a.equal(b) for a, b in zip(*buffers, strict=True))

    # the work done over all attempts: each resumption repeats less than what one checkpoint interval holds
    resumed = records[0]["resumed_from"]
    places = [place["epoch"] * 10 + place["step"] for place in resumed]
    assert places == sorted(places)
    assert len(resumed) >= KILLS // 2


LIBRARIES: dict[str, dict[str, Any]] = {
    "lion": {"timm": {"name": "lion", "weight_decay": 0.05}},
    "NAdam": {"torch": {"name": "NAdam", "weight_decay": 0.01, "decay": "weights"}},
}
"""An optimizer of timm and one of torch, whose state (a momentum; two moments and a product of
momentums) the built-in ones do not have."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_killed_with_an_optimizer_of_a_library_equals_never_killed(tmp_path: Path, name: str) -> None:
    study = tmp_path / "study.yaml"
    optimizer = f"optimizer: {json.dumps(LIBRARIES[name])}"
    study.write_text(STUDY.replace("optimizer: momentum", optimizer).replace("ema: 0.95", "swa: 0.5"))
    finish(start(study, tmp_path / "whole"))
    run, kills = tmp_path / "killed" / "study" / "run" / "seed-0", 0
    while kills < 4:
        attempt = start(study, tmp_path / "killed")
        target = 15 * kills + 3  # behind 45 epochs weights are averaged
        while attempt.is_alive() and logged(run) < target:
            time.sleep(0.001)
        kill(attempt, kills)
        kills += 1
    finish(start(study, tmp_path / "killed"))
    reference = tmp_path / "whole" / "study" / "run" / "seed-0"
    same_files(run, reference)
    states = [
        torch.load(folder / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
        for folder in (run, reference)
    ]
    assert states[0].keys() == states[1].keys()
    for one, other in zip(*(state.values() for state in states), strict=True):
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)
    assert len(json.loads((run / "record.json").read_text())["resumed_from"]) >= 3
