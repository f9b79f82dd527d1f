"""The server that the worker processes of a command are forked from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stresslens.study import worker_server

STUDY = """
data: {digits: {subset: 200}}
model: linear
train: {epochs: 2, batch_size: 64, precision: float32, threads: 1, memory_format: contiguous}
repeats: 3
"""

WORKER = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
from stresslens.study import executors
from stresslens.study.worker_server import start_worker_server, worker_context
import worker_facts

if __name__ == "__main__":
    start_worker_server()
    os.environ["SET_LATER"] = "yes"
    os.chdir(sys.argv[1])
    environment = (dict(os.environ),)
    with ProcessPoolExecutor(1, worker_context(), executors._start_worker, environment) as pool:
        print(*pool.submit(worker_facts.facts).result())
"""

FACTS = """
import os

import torch

def facts():
    total = float(torch.ones(300, 300).matmul(torch.ones(300, 300)).sum())
    return os.environ.get("SET_LATER"), os.getcwd(), total
"""


def test_without_a_command_workers_are_spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_server, "_started", [])
    assert worker_server.worker_context().get_start_method() == "spawn"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems spawn")
def test_a_worker_has_the_environment_and_folder_of_its_parent(tmp_path: Path) -> None:
    (tmp_path / "worker_facts.py").write_text(FACTS)
    (tmp_path / "parent.py").write_text(WORKER)
    (tmp_path / "there").mkdir()
    said = subprocess.run(
        [sys.executable, "parent.py", "there"], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert said.split() == ["yes", str(tmp_path / "there"), "27000000.0"]


def test_jobs_give_the_figures_of_one_process(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    scores = []
    for jobs in ("1", "2"):
        command = [sys.executable, "-m", "stresslens", "run", "study.yaml", "--jobs", jobs, "-q"]
        command += ["--out", jobs]
        subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        runs = sorted((tmp_path / jobs).rglob("model.safetensors"))
        scores.append([file.read_bytes() for file in runs])
    assert len(scores[0]) == 3
    assert scores[0] == scores[1]
