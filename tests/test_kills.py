"""Commands are killed before each of their file operations. The same command again ends as if there
had been no kill: nothing is left over and nothing differs.

What would be missed: a kill while a file's bytes are written (files are complete before they are
renamed to their place), and the loss of power, after which the disk may lack what was not synced.
"""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_commands import Outcome, WarmProcess, fresh
from PIL import Image

OF_TIME = ("timings.json", "timings.jsonl", "checkpoint.pt", "checkpoint.previous.pt")
"""Files whose bytes hold times by their nature: only their being there is compared."""
CLOCKS = ("seconds", "images_per_second", "peak_memory", "datetime_start", "datetime_complete")
"""Keys of record.json, sweep.json and trials.jsonl with times or memory."""
RESUMPTION = ("resumed_from",)
"""Keys of record.json that say how a run came about."""

STUDY = """
name: small
data: {folder: {path: pictures}}
model: linear
train:
  {epochs: 2, batch_size: 32, precision: float32, threads: 1, memory_format: contiguous,
  checkpoint_seconds: 1.0e-9}
"""
EVALUATIONS = """
robustness: {radii: "0.1", protocol: [fgsm], images: 6, certificates: [{smoothing: {n: 40}}]}
corruptions: {kinds: [blur], images: 6}
explain: {explainers: [saliency], images: 2}
views: {kinds: [class_image: {steps: 2}], images: 2}
"""
SWEEP = """
sweep: {trials: 2, method: random, space: {train.lr: {from: 0.01, to: 0.1}}}
"""
STUDIES = {
    "small.yaml": STUDY,
    "other.yaml": STUDY.replace("small", "other").replace("epochs: 2", "epochs: 1"),
    "evaluated.yaml": STUDY + EVALUATIONS,
    "sweep.yaml": STUDY + SWEEP,
}
RUN, OTHER = "runs/small/run/seed-0", "runs/other/run/seed-0"
TRAINED = (("run", "small.yaml"),)
BOTH_TRAINED = (*TRAINED, ("run", "other.yaml"))


@dataclass(frozen=True)
class Scenario:
    """A command, and the commands that come before it."""

    command: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = TRAINED


EXPORT = ("export", RUN, "--to", "safetensors", "--out", "model")
SCENARIOS = {
    "train": Scenario(("run", "small.yaml"), ()),
    "evaluations": Scenario(("run", "evaluated.yaml")),
    "sweep": Scenario(("run", "sweep.yaml"), ()),
    "evaluate": Scenario(("evaluate", RUN)),
    "attack": Scenario(("attack", RUN, "--radii", "0.1", "--protocol", "[fgsm]", "--images", "6")),
    "explain": Scenario(("explain", RUN, "--explainer", "saliency", "--images", "2")),
    "export": Scenario(EXPORT),
    "export again": Scenario(EXPORT, (*BOTH_TRAINED, ("export", OTHER, *EXPORT[2:]))),
    "export to torch": Scenario(("export", RUN, "--to", "torch")),
    "data check": Scenario(("data", "check", "pictures"), ()),
    "predict": Scenario(("predict", RUN, "pictures")),
    "report": Scenario(("report", "runs/small")),
    "compare": Scenario(("compare", RUN, OTHER), BOTH_TRAINED),
}
SAMPLE = {"train": 4, "evaluate": 2, "export": 3, "data check": 3}
"""The number of kills in `make test`."""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    process = WarmProcess(tmp_path_factory.mktemp("kills") / "work")
    yield process
    process.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the studies, and 60 pictures of two classes."""
    root = tmp_path_factory.mktemp("start")
    draws = np.random.default_rng(0)
    for number in range(60):
        folder = root / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 200, (8, 8), dtype=np.uint8) + np.uint8(50 * (number % 2))
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    for name, text in STUDIES.items():
        (root / name).write_text(text)
    return root


@dataclass(frozen=True)
class Undisturbed:
    """A scenario, the folder it begins in, and what the folder holds after the command."""

    scenario: Scenario
    start: Path
    outcome: Outcome
    held: dict[str, Any]


class Machine:
    """Carries out scenarios, and keeps what the folder holds after each without a kill."""

    def __init__(self, warm: WarmProcess, pictures: Path) -> None:
        self.warm, self._starts = warm, {(): pictures}
        self._undisturbed: dict[str, Undisturbed] = {}

    def _start(self, before: tuple[tuple[str, ...], ...]) -> Path:
        """The folder after these commands."""
        if before not in self._starts:
            fresh(self.warm.work, self._start(before[:-1]))
            done = self.warm.run(before[-1])
            assert done.code == 0, done.output
            self._starts[before] = self.warm.work.with_name(f"start{len(self._starts)}")
            fresh(self._starts[before], self.warm.work)
        return self._starts[before]

    def undisturbed(self, name: str) -> Undisturbed:
        """The scenario, without a kill."""
        if name not in self._undisturbed:
            scenario = SCENARIOS[name]
            start = self._start(scenario.before)
            fresh(self.warm.work, start)
            outcome = self.warm.run(scenario.command)
            assert outcome.code in (0, 5), outcome.output
            self._undisturbed[name] = Undisturbed(scenario, start, outcome, held(self.warm.work))
        return self._undisturbed[name]

    def after_kills(self, name: str, *at: int, by: signal.Signals = signal.SIGKILL) -> str:
        """What is left over, missing or different after kills before these file operations and the
        same command again; empty if nothing is."""
        whole = self.undisturbed(name)
        fresh(self.warm.work, whole.start)
        for number in at:
            self.warm.run(whole.scenario.command, at=number, by=by)
        again = self.warm.run(whole.scenario.command)
        found = held(self.warm.work)
        wrong = {
            "left over": found.keys() - whole.held.keys(),
            "missing": whole.held.keys() - found.keys(),
            "different": [n for n in found.keys() & whole.held.keys() if found[n] != whole.held[n]],
        }
        told = [f"{what}: {', '.join(sorted(names))}" for what, names in wrong.items() if names]
        if again.code != whole.outcome.code:
            told.append(f"exit {again.code}: {again.output[-300:]}")
        return "; ".join(told)


@pytest.fixture(scope="module")
def machine(warm: WarmProcess, pictures: Path) -> Machine:
    return Machine(warm, pictures)


def held(root: Path) -> dict[str, Any]:
    """What the files below a folder hold, without times."""
    return {str(file.relative_to(root)): _content(file) for file in sorted(root.rglob("*")) if file.is_file()}


def _content(file: Path) -> Any:
    content = file.read_bytes()
    if file.name in OF_TIME:
        return None
    if file.name == "report.html":  # times, a date and a digest of record.json are in it
        return re.sub(rb"[0-9a-f]{16}|[\d.:,\-]+", b"#", content)
    if file.name in ("record.json", "sweep.json"):
        return _timeless(json.loads(content))
    if file.name == "trials.jsonl":
        return [_timeless(json.loads(line)) for line in content.splitlines()]
    return content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = (*CLOCKS, *RESUMPTION)
        return {key: _timeless(each) for key, each in value.items() if key not in left_out}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def test_a_sample_of_kills(machine: Machine) -> None:
    for name, kills in SAMPLE.items():
        operations = machine.undisturbed(name).outcome.operations
        for number in random.Random(0).sample(range(1, len(operations) + 1), kills):
            told = machine.after_kills(name, number)
            assert not told, f"{name}, killed before {operations[number - 1]}: {told}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_kill(name: str, machine: Machine) -> None:
    operations = machine.undisturbed(name).outcome.operations
    told = {
        operation: wrong
        for number, operation in enumerate(operations, 1)
        if (wrong := machine.after_kills(name, number))
    }
    assert not told, "\n".join(f"{operation}: {wrong}" for operation, wrong in told.items())
