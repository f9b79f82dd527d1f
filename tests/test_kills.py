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

OF_TIME = ("timings.json", "timings.jsonl", "checkpoint.pt")
"""Files whose bytes hold times by their nature: only their being there is compared."""
PREVIOUS = "checkpoint.previous.pt"
"""Not compared: a training that resumes at its end writes one checkpoint only."""
CLOCKS = ("seconds", "images_per_second", "peak_memory")
"""Keys of record.json and sweep.json with times or memory."""
HISTORY = ("resumed_from",)
"""Keys that say how a run came about: where it was resumed."""
PAGE = (
    r'<section id="(history|cost)">.*?</section>|<li><a href="#(history|cost)">.*?</li>|<svg.*?</svg>'
    r"|[0-9a-f]{16}|[\d.:,\-−\u202f]+(e[+-]\d+)?"
)
"""What differs in a page: resumptions, charts (their ticks), digests of record.json, numbers and times."""

STUDY = """
data: {folder: {path: pictures}}
model: linear
train:
  {epochs: 2, batch_size: 64, precision: float32, threads: 1, memory_format: contiguous,
  checkpoint_seconds: 1.0e-9, schedule: constant}
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
    "other.yaml": STUDY.replace("epochs: 2", "epochs: 1"),
    "evaluated.yaml": STUDY + EVALUATIONS,
    "plain/evaluated.yaml": STUDY,
    "longer/small.yaml": STUDY.replace("epochs: 2", "epochs: 3"),
    "sweep.yaml": STUDY.replace("epochs: 2", "epochs: 1") + SWEEP,
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
    "evaluations": Scenario(("run", "evaluated.yaml"), (("run", "plain/evaluated.yaml"),)),
    "more epochs": Scenario(("run", "longer/small.yaml")),
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
KINDS = ("left over", "missing", "different", "refused")

SAMPLE = {"train": 1, "data check": 2}
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
        (root / name).parent.mkdir(exist_ok=True)
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

    def after_kills(self, name: str, *at: int, by: signal.Signals = signal.SIGKILL) -> dict[str, list[str]]:
        """What is left over, missing or different after kills before these file operations and the
        same command again; empty if nothing is."""
        whole = self.undisturbed(name)
        fresh(self.warm.work, whole.start)
        for number in at:
            self.warm.run(whole.scenario.command, at=number, by=by)
        again = self.warm.run(whole.scenario.command)
        found = held(self.warm.work)
        both = found.keys() & whole.held.keys()
        wrong = {
            "left over": sorted(found.keys() - whole.held.keys()),
            "missing": sorted(whole.held.keys() - found.keys()),
            "different": sorted(file for file in both if found[file] != whole.held[file]),
            "refused": [again.output] if again.code != whole.outcome.code else [],
        }
        return {what: files for what, files in wrong.items() if files}


@pytest.fixture(scope="module")
def machine(warm: WarmProcess, pictures: Path) -> Machine:
    return Machine(warm, pictures)


def held(root: Path) -> dict[str, Any]:
    """What the files below a folder hold, without times."""
    files = [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != PREVIOUS]
    return {str(file.relative_to(root)): _content(file) for file in files}


def _content(file: Path) -> Any:
    content = file.read_bytes()
    if file.name in OF_TIME:
        return None
    if file.name == "report.html":
        return re.sub(PAGE, "", content.decode(), flags=re.DOTALL).split()
    if file.name in ("record.json", "sweep.json"):
        return _timeless(json.loads(content))
    return content


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        left_out = (*CLOCKS, *HISTORY)
        return {key: _timeless(each) for key, each in value.items() if key not in left_out}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def numbers(machine: Machine, name: str) -> range:
    """The numbers of the file operations of a scenario."""
    return range(1, len(machine.undisturbed(name).outcome.operations) + 1)


def test_a_sample_of_kills(machine: Machine) -> None:
    for name, kills in SAMPLE.items():
        for number in random.Random(0).sample(numbers(machine, name), kills):
            operation = machine.undisturbed(name).outcome.operations[number - 1]
            assert not machine.after_kills(name, number), f"{name}, killed before {operation}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_kill(name: str, machine: Machine) -> None:
    """With -s it prints a row of the table in docs/results.md."""
    operations = machine.undisturbed(name).outcome.operations
    told = {}
    for number, operation in enumerate(operations, 1):
        if wrong := machine.after_kills(name, number):
            told[f"{number} {operation}"] = wrong
    counts = [sum(what in wrong for wrong in told.values()) for what in KINDS]
    print(f"\n| {name} | {len(operations)} | {' | '.join(map(str, counts))} |")
    assert not told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "evaluations", "sweep", "export again", "data check"])
def test_a_second_kill_while_resuming(name: str, machine: Machine) -> None:
    draws = random.Random(1)
    for _ in range(4):
        first, second = draws.choice(numbers(machine, name)), draws.randint(1, 20)
        assert not machine.after_kills(name, first, second), (first, second)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["train", "evaluations", "attack", "export again", "data check"])
def test_a_signal_instead_of_a_kill(name: str, by: signal.Signals, machine: Machine) -> None:
    for number in random.Random(2).sample(numbers(machine, name), 4):
        assert not machine.after_kills(name, number, by=by), number
