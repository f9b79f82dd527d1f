"""Commands carried out by several processes: one of them speaks, and an error or a kill of one ends
all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from several import command, start

from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages


@pytest.mark.slow
def test_divergence_is_told_once_and_the_other_runs_go_on(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "data: {digits: {subset: 100}}\nmodel: linear\n"
        "train: {epochs: 2, batch_size: 40, optimizer: sgd, precision: float32, threads: 1, "
        "memory_format: contiguous}\n"
        "runs:\n  wild: {train.lr: 1.0e+38, train.loss: mse}\n  tame: {}\n"
    )
    assert start(2, command, tmp_path, "run", "study.yaml").codes() == [4, 0]
    for run, status in (("wild", "diverged"), ("tame", "finished")):
        assert read_json(tmp_path / "runs" / "study" / run / "seed-0" / "record.json")["status"] == status
    first, second = ((tmp_path / f"said-{rank}").read_text() for rank in range(2))
    assert "is not finite" in first or "the loss is" in first
    assert "(40 in all)" in first  # the whole batch's images, not one part's
    assert second == ""


TINY = "data: {digits: {subset: 100}}\ntrain: {epochs: 2, precision: float32, threads: 1}\n"
REFUSED = {
    "a wrong key": ("model: lineal\n", [], "did you mean 'linear'"),
    "batch norm": (
        "runs: {plain: {model: linear}, normed: {model: {simple_cnn: {batch_norm: true}}}}\n",
        [],
        "SyncBatchNorm does not run on a CPU",
    ),
    "jobs": ("model: linear\n", ["--jobs", "2"], "--jobs 2: under torchrun"),
    "ray": ("model: linear\nexecutor: ray\n", [], "the executor ray: under torchrun"),
    "one GPU": ("model: linear\n", ["--device", "mps"], "mps"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_training_by_the_first_alone(tmp_path: Path, name: str) -> None:
    extra, words, message = REFUSED[name]
    (tmp_path / "study.yaml").write_text(TINY + extra)
    assert start(2, command, tmp_path, "run", "study.yaml", *words).codes() == [2, 0]
    assert message in (tmp_path / "said-0").read_text()
    assert (tmp_path / "said-1").read_text() == ""
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_any_other_command_is_the_firsts_alone(tmp_path: Path) -> None:
    assert start(2, command, tmp_path, "list", "losses").codes() == [0, 0]
    assert "cross_entropy" in (tmp_path / "said-0").read_text()
    assert (tmp_path / "said-1").read_text() == ""


OWN = """
import os
from torch.nn.functional import cross_entropy

def vector(logits, y):
    return logits.sum(1).detach()

def of_the_second(logits, y):
    if os.environ.get("RANK") == "1":
        raise %s
    return cross_entropy(logits, y)
"""


@pytest.mark.slow
def test_an_error_in_the_midst_of_training_ends_all(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN % "ValueError('not here')")
    (tmp_path / "study.yaml").write_text(TINY + 'model: linear\nruns: {own: {train.loss: "own.py:vector"}}\n')
    assert start(2, command, tmp_path, "run", "study.yaml").codes() == [2, 0]
    assert "expected a scalar tensor" in (tmp_path / "said-0").read_text()
    assert (tmp_path / "said-1").read_text() == ""


@pytest.mark.slow
def test_an_error_of_one_process_alone_ends_all(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN % "MemoryError('full')")
    (tmp_path / "study.yaml").write_text(
        TINY + 'model: linear\nruns: {own: {train.loss: "own.py:of_the_second"}}\n'
    )
    started = start(2, command, tmp_path, "run", "study.yaml")
    started.processes[1].join(60)
    assert started.processes[1].exitcode == 1
    assert started.codes() == [1, 1]
    assert "another process of this training has ended" in (tmp_path / "said-0").read_text()


def torchrun(folder: Path, *words: str) -> subprocess.Popen[str]:
    """torchrun itself, in the folder."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "stresslens",
            *words,
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(stages.__file__).parents[2])},
    )


@pytest.mark.slow
def test_torchrun_runs_a_study_to_its_report(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(TINY + "runs: {linear: {model: linear}, mlp: {model: mlp}}\n")
    started = torchrun(tmp_path, "run", "study.yaml")
    out, err = started.communicate(timeout=120)
    assert started.returncode == 0, err
    assert out.count("report: ") == 1
    assert err.count("2 epochs in") == 2
    study = tmp_path / "runs" / "study"
    assert (study / "report.html").is_file()
    assert read_json(study / "mlp" / "seed-0" / "record.json")["status"] == "finished"


SLOW = (
    "data: digits\nmodel: {mlp: {widths: [64]}}\n"
    "train: {epochs: 3000, checkpoint_seconds: 0.2, precision: float64, threads: 1}\n"
)


def training_under_torchrun(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A long training that has logged some epochs and saved."""
    (tmp_path / "study.yaml").write_text(SLOW)
    started = torchrun(tmp_path, "run", "study.yaml")
    run = tmp_path / "runs" / "study" / "run" / "seed-0"
    until = time.monotonic() + 60
    while not (run / "checkpoint.previous.pt").exists():
        assert time.monotonic() < until
        assert started.poll() is None, started.communicate()
        time.sleep(0.02)
    return started, run


def place_of(run: Path) -> int:
    state, _ = RunFolder(run).load_checkpoint()
    assert state is not None
    return int(state["position"]["updates"])


@pytest.mark.slow
def test_torchrun_ends_all_when_one_is_killed_and_the_same_command_goes_on(tmp_path: Path) -> None:
    started, run = training_under_torchrun(tmp_path)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    started.communicate(timeout=60)
    assert started.returncode == 1
    before = place_of(run)
    again = torchrun(tmp_path, "run", "study.yaml")
    until = time.monotonic() + 60
    while place_of(run) <= before + 20:
        assert time.monotonic() < until
        time.sleep(0.05)
    again.send_signal(signal.SIGTERM)  # torchrun passes it on
    again.communicate(timeout=60)
    record = read_json(run / "record.json")
    assert record["status"] == "stopped"
    assert record["resumed_from"][0]["processes"] == 2
    assert place_of(run) > before
