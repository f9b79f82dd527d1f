"""Sweeps whose worker and whose command are killed: no trial is lost and none is done twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from several import PROCESSES
from small_sweep import swept, written

from stresslens.config import study_file
from stresslens.study import pipeline

LONG = {"train": {"epochs": 200, "checkpoint_seconds": 0.05}, "sweep": {"trials": 5}}


def carry_out(file: Path, out: Path, executor: str) -> None:
    torch.set_num_threads(1)
    os.setsid()
    pipeline.run(study_file.with_executor(study_file.read_study(file), executor), out=out, jobs=2)


def start(file: Path, out: Path, executor: str = "local") -> BaseProcess:
    process = PROCESSES.Process(target=carry_out, args=(file, out, executor))
    process.start()
    return process


def until(condition: Callable[[], bool], process: BaseProcess, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.is_alive(), "it ended before"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def holder(folder: Path) -> int | None:
    """The process that holds a folder's lock, by Linux's table of locks."""
    lock = folder / ".lock"
    if not lock.exists():
        return None
    inode = str(lock.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        if line.split()[1] == "FLOCK" and line.split()[5].endswith(f":{inode}"):
            return int(line.split()[4])
    return None


def ends_like(out: Path, whole: Path) -> None:
    """No trial lost, none done twice, and every one ends as if nothing had happened."""
    mine, theirs = swept(out / "s"), swept(whole / "s")
    assert [trial["settings"] for trial in mine["trials"]] == [
        trial["settings"] for trial in theirs["trials"]
    ]
    assert [trial["value"] for trial in mine["trials"]] == [trial["value"] for trial in theirs["trials"]]
    assert mine["best"] == theirs["best"]
    for path in sorted((whole / "s" / "run").rglob("metrics.jsonl")):
        assert path.read_bytes() == (out / path.relative_to(whole)).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    pipeline.run(written(folder, **LONG), out=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_kill_of_a_worker_and_of_the_parent_in_mid_sweep(tmp_path: Path, whole: Path, executor: str) -> None:
    """Locally a killed worker ends the command, which is typed again; on Ray its trial is finished
    elsewhere."""
    written(tmp_path, **LONG)
    trials = tmp_path / "s" / "run" / "trials"
    attempt = start(tmp_path / "s.yaml", tmp_path, executor)
    until(lambda: (trials / "001" / "checkpoint.pt").exists() and holder(trials / "001") is not None, attempt)
    worker = holder(trials / "001")
    assert worker is not None
    assert worker != attempt.pid
    os.kill(worker, signal.SIGKILL)
    if executor == "local":
        attempt.join(60)
        assert attempt.exitcode == 1
        attempt = start(tmp_path / "s.yaml", tmp_path, executor)
    until(lambda: (trials / "003" / "checkpoint.pt").exists(), attempt)
    assert attempt.pid is not None
    os.kill(attempt.pid, signal.SIGKILL)
    attempt.join(60)
    attempt = start(tmp_path / "s.yaml", tmp_path, executor)
    attempt.join(240)
    assert attempt.exitcode == 0
    ends_like(tmp_path, whole)
    assert json.loads((trials / "001" / "record.json").read_text())["resumed_from"]
