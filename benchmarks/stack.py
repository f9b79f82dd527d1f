"""Several runs in one program (`train.stack`) beside the same runs one by one.

    python benchmarks/stack.py                   # the training loop
    python benchmarks/stack.py --only commands   # `stresslens run` on ten seeds of digits

The contestants take turns in one process; medians of ratios are printed, with n and the range. The
clock of the loop is the processor time of its thread, evaluation and logs included. The clock of
commands is the one on the wall. Of MNIST it trains on 6,000 images.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stresslens.config import study_file
from stresslens.core.devices import keep_memory, on_threads
from stresslens.core.run_folder import RunFolder
from stresslens.training.distributed import begin_training
from stresslens.training.loop import Training, fit
from stresslens.training.setup import build_model
from stresslens.training.stack import Stack, fit_together
from stresslens.training.task import Task, load_data

CASES = [
    ("digits", "linear", 64, 8, 10),
    ("digits", "mlp", 64, 3, 10),
    ("digits", "mlp", 64, 8, 10),
    ("digits", "mlp", 64, 64, 10),
    ("mnist", "linear", 64, 5, 1),
    ("mnist", "linear", 512, 5, 3),
    ("mnist", "mlp", 64, 5, 1),
    ("mnist", "mlp", 512, 5, 3),
]
"""Data, model, batch size, runs, epochs."""
STUDY = """data: digits
model: mlp
train: {{epochs: {epochs}, stack: {stack}}}
repeats: 10
"""


def trainings(data: str, model: str, batch: int, runs: int, epochs: int, folder: Path) -> list[Training]:
    """Trainings that have not begun, with seeds from 0."""
    train = {"epochs": epochs, "batch_size": batch, "device": "cpu", "precision": "float32"}
    train |= {"threads": 1, "memory_format": "contiguous"}
    if data == "mnist":
        train["subset"] = {"images": 6000}
    config = study_file.variant_config_from({"data": data, "model": model, "train": train}, Path.cwd())
    found = []
    for seed in range(runs):
        task = Task("benchmark", "run", seed, config, Path.cwd(), folder / str(seed))
        task.folder.mkdir(parents=True)
        images = load_data(Task("benchmark", "run", 0, config, Path.cwd(), folder))
        net = build_model(task, images)
        found.append(begin_training(task, images, net, None, RunFolder(task.folder), lambda *_: None))
    return found


def loop_gain(case: tuple[str, str, int, int, int], turn: int) -> tuple[float, bool]:
    """How many times as fast the stack is, and whether its weights have the bits of one by one."""
    with tempfile.TemporaryDirectory() as folder:
        alone, together = (trainings(*case, Path(folder) / way) for way in ("alone", "stack"))
        seconds = {}
        ways = [("alone", lambda: [fit(t) for t in alone]), ("stack", lambda: fit_together(Stack(together)))]
        for way, train in ways if turn % 2 else reversed(ways):
            start = time.thread_time()
            train()
            seconds[way] = time.thread_time() - start
        same = all(
            value.equal(other.chosen()[name])
            for one, other in zip(alone, together)
            for name, value in one.chosen().items()
        )
    return seconds["alone"] / seconds["stack"], same


def command_seconds(stack: bool, epochs: int, jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.yaml"
        study.write_text(STUDY.format(stack=str(stack).lower(), epochs=epochs), encoding="utf-8")
        command = [sys.executable, "-m", "stresslens", "run", str(study), "--out", folder]
        command += ["--jobs", str(jobs)] if jobs > 1 else []
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def told(ratios: list[float]) -> str:
    low, high = min(ratios), max(ratios)
    return f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f}), n = {len(ratios)}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=["loop", "commands"], default="loop")
    given = parser.parse_args()
    keep_memory()
    if given.only == "commands":
        for epochs in (10, 100):
            for jobs in (1, 2):
                ratios = []
                for turn in range(given.turns):
                    ways = (False, True) if turn % 2 else (True, False)
                    seconds = {stack: command_seconds(stack, epochs, jobs) for stack in ways}
                    ratios.append(seconds[False] / seconds[True])
                print(f"stresslens run --jobs {jobs}, {epochs} epochs: {told(ratios)}", flush=True)
        return
    with on_threads(1):
        for case in CASES:
            found = [loop_gain(case, turn) for turn in range(given.turns)]
            data, model, batch, runs, _ = case
            bits = "same bits" if all(same for _, same in found) else "other bits"
            gains = told([gain for gain, _ in found])
            print(f"{data} {model}, batch {batch}, {runs} runs: {gains}; {bits}", flush=True)


if __name__ == "__main__":
    main()
