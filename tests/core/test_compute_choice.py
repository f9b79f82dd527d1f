"""The choice of threads, memory format and precision: the rules, and what leaves them."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from stresslens.cli.main import app
from stresslens.core import compute_choice
from stresslens.core.compute_choice import (
    GAIN,
    PAIRS,
    WINS,
    architecture_digest,
    choose,
    clear,
    gains_in_pairs,
    measured_choice,
    memory_formats,
    threads_for,
    usual_choice,
)
from stresslens.core.devices import MemoryFormat, Precision
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.kept_choices import ComputeChoice, KeptChoice, choices_folder, kept_choices, kept_or_made

POSSIBLE: dict[Precision, list[MemoryFormat]] = {
    "float32": ["channels_last", "contiguous"],
    "bfloat16": ["channels_last", "contiguous"],
}
Seconds = dict[tuple[Precision, MemoryFormat], float]


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))


class NoisyMachine:
    """A clock and steps that take time by it. Every step takes up to `noise` times as long, some ten
    times as long, and the machine slows down and speeds up."""

    def __init__(self, seconds: Seconds, noise: float, seed: int) -> None:
        self.seconds, self.noise, self.now = seconds, noise, 0.0
        self.random = np.random.default_rng(seed)

    def clock(self) -> float:
        return self.now

    def prepare(self, precision: Precision, memory_format: MemoryFormat) -> Callable[[], None]:
        def step() -> None:
            slow = 1 + self.noise * self.random.random()
            slow *= 10 if self.random.random() < self.noise / 10 else 1
            slow *= 1 + self.noise * (1 + np.sin(self.now))
            self.now += self.seconds[precision, memory_format] * slow

        return step


def seconds_of(last: float, half: float) -> Seconds:
    """Seconds of a step where channels last is `last` times, and bfloat16 `half` times as fast."""
    return {
        ("float32", "contiguous"): 0.004 * last,
        ("float32", "channels_last"): 0.004,
        ("bfloat16", "contiguous"): 0.004 * last / half,
        ("bfloat16", "channels_last"): 0.004 / half,
    }


@pytest.mark.breadth(6)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    ("last", "half", "precision", "memory_format"),
    [
        (1.6, 1.05, "float32", "channels_last"),
        (1.6, 2.5, "bfloat16", "channels_last"),
        (1.0, 0.6, "float32", "channels_last"),
        (0.9, 1.2, "float32", "channels_last"),
        (0.4, 1.0, "float32", "contiguous"),
        (0.4, 3.5, "bfloat16", "contiguous"),
    ],
)
def test_eight_fresh_folders_decide_alike_on_a_noisy_machine(
    last: float, half: float, precision: str, memory_format: str, noise: float
) -> None:
    for seed in range(8):
        machine = NoisyMachine(seconds_of(last, half), noise, seed)
        found = measured_choice(POSSIBLE, machine.prepare, machine.clock)
        assert (found.precision, found.formats[found.precision]) == (precision, memory_format)


@given(
    gain=st.floats(0.2, 5).filter(lambda gain: not 0.8 < gain / GAIN < 1.25),
    load=st.floats(1, 50),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_a_decision_does_not_depend_on_the_load(gain: float, load: float, seed: int) -> None:
    """Each pair is as slow as the machine is at that time."""
    random, now, calls = np.random.default_rng(seed), [0.0], [0]

    def step(seconds: float) -> Callable[[], None]:
        def run() -> None:
            calls[0] += 1
            now[0] += seconds * load * (1 + 0.1 * random.random())

        return run

    ratios = gains_in_pairs(step(0.02 * gain), step(0.02), lambda: now[0])
    assert clear(ratios) == (gain > GAIN)
    assert len(ratios) == (WINS if gain > GAIN else PAIRS - WINS + 1)  # no more than decide


@given(st.lists(st.floats(0.1, 10), max_size=PAIRS))
def test_a_gain_is_clear_where_nearly_all_pairs_show_it(ratios: list[float]) -> None:
    assert clear(ratios) == (len([ratio for ratio in ratios if ratio >= GAIN]) >= WINS)
    assert not clear([min(ratio, 1.4) for ratio in ratios])


@given(operations=st.floats(0, 1e13), most=st.integers(1, 256))
def test_threads_follow_from_the_size_of_a_step(operations: float, most: int) -> None:
    threads = threads_for(operations, most)
    assert 1 <= threads <= most
    assert threads == 1 or operations / threads >= 1.5e8
    assert threads == most or operations / (threads + 1) < 1.5e8


def test_the_rule_of_memory_formats() -> None:
    net, flat = small_net(), nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    assert memory_formats(net, "cpu", "float32") == ["channels_last", "contiguous"]
    assert memory_formats(net, "cuda", "float32") == ["contiguous", "channels_last"]
    assert memory_formats(net, "cuda", "bfloat16") == ["channels_last", "contiguous"]
    assert memory_formats(flat, "cpu", "float32") == ["contiguous"]
    assert memory_formats(nn.Sequential(nn.Conv2d(3, 8, 4, 4)), "cpu", "float32") == ["contiguous"]
    assert usual_choice(POSSIBLE) == ComputeChoice(
        {"float32": "channels_last", "bfloat16": "channels_last"}, "float32"
    )


def test_a_digest_is_of_the_structure_and_not_of_addresses_or_weights() -> None:
    class Named(nn.Module):
        def __init__(self, function: Callable[[], None]) -> None:
            super().__init__()
            self.function = function

        def extra_repr(self) -> str:
            return repr(self.function)

    one, other = (Named(lambda: None) for _ in range(2))
    assert repr(one) != repr(other)
    assert architecture_digest(one) == architecture_digest(other)
    torch.manual_seed(0)
    first, second = small_net(), small_net()
    assert architecture_digest(first) == architecture_digest(second)
    assert architecture_digest(first) != architecture_digest(first.double())
    assert architecture_digest(nn.Linear(2, 3)) != architecture_digest(nn.Linear(2, 4))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


ABOUT = {"what": "training", "model": "simple_cnn", "shape": [1, 28, 28], "batch": 64}
NARROW = ComputeChoice({"float32": "channels_last", "bfloat16": "channels_last"}, "bfloat16")
WIDE = ComputeChoice({"float32": "channels_last", "bfloat16": "channels_last"}, "float32")


def chosen(seconds: Seconds, monkeypatch: pytest.MonkeyPatch, operations: float = 1e9) -> ComputeChoice:
    """The choice on a machine with these times."""
    machine = NoisyMachine(seconds, 0.0, 0)
    with monkeypatch.context() as patch:
        patch.setattr(compute_choice, "clock_of", lambda device: machine.clock)
        return choose(
            small_net(), POSSIBLE, machine.prepare, operations=operations, device="cpu", about=ABOUT
        )


def test_the_first_decision_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(seconds_of(1.6, 2.5), monkeypatch) == NARROW
    assert chosen(seconds_of(1.6, 0.5), monkeypatch) == NARROW  # another time, another load
    ((path, kept),) = kept_choices()
    assert isinstance(kept, KeptChoice)
    assert kept.about["model"] == "simple_cnn"
    assert len(kept.gains["bfloat16 channels_last beside float32 channels_last"]) == WINS
    path.unlink()
    assert chosen(seconds_of(1.6, 0.5), monkeypatch) == WIDE


def test_a_small_step_and_a_switch_leave_the_rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(seconds_of(1.6, 2.5), monkeypatch, operations=1e8) == WIDE
    monkeypatch.setenv("STRESSLENS_MEASURE", "0")
    assert chosen(seconds_of(1.6, 2.5), monkeypatch) == WIDE
    assert not choices_folder().exists()
    monkeypatch.setenv("STRESSLENS_MEASURE", "1")
    assert chosen(seconds_of(1.6, 2.5), monkeypatch) == NARROW
    monkeypatch.setenv("STRESSLENS_MEASURE", "no")
    with pytest.raises(ConfigError, match="STRESSLENS_MEASURE='no': expected 0"):
        chosen(seconds_of(1.6, 2.5), monkeypatch)


def test_a_step_that_fails_leaves_the_rules_alone() -> None:
    def prepare(precision: Precision, memory_format: MemoryFormat) -> Callable[[], None]:
        raise ValueError("a module may do anything")

    assert choose(small_net(), POSSIBLE, prepare, operations=1e9, device="cpu", about=ABOUT) == WIDE


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 2}', b"precision", b"about"],
    ids=["empty", "cut", "a list", "no text", "another format", "unknown precision", "another model"],
)
def test_a_damaged_file_is_made_anew(damage: bytes) -> None:
    kept_or_made(ABOUT, lambda: NARROW)
    ((path, kept),) = kept_choices()
    assert isinstance(kept, KeptChoice)
    changed = {
        b"precision": kept.as_json() | {"precision": "int8"},
        b"about": kept.as_json() | {"about": ABOUT | {"model": "vit"}},
    }.get(damage)
    path.write_bytes(damage if changed is None else json.dumps(changed).encode())
    with pytest.warns(Notice, match="made anew"):
        assert kept_or_made(ABOUT, lambda: WIDE) == WIDE
    assert kept_or_made(ABOUT, lambda: NARROW) == WIDE


def _race(folder: str, which: int, start: object, results: object) -> None:
    import os

    os.environ["XDG_CACHE_HOME"] = folder
    start.wait()  # type: ignore[attr-defined]
    made = (NARROW, WIDE)[which % 2]
    results.put(kept_or_made(ABOUT, lambda: made).precision)  # type: ignore[attr-defined, union-attr]


@pytest.mark.slow
def test_of_processes_that_begin_at_once_the_first_decides(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for turn in range(3):
        start, results = context.Barrier(4), context.Queue()
        folder = str(tmp_path / str(turn))
        others = [context.Process(target=_race, args=(folder, k, start, results)) for k in range(4)]
        for other in others:
            other.start()
        found = {results.get(timeout=60) for _ in others}
        for other in others:
            other.join()
        assert len(found) == 1
        assert len(list(Path(folder).rglob("*.json"))) == 1
        assert not [file for file in Path(folder).rglob("*") if ".json." in file.name]  # nothing left over


def test_where_nothing_can_be_kept_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))

    def make() -> ComputeChoice:
        raise AssertionError("measured")

    with pytest.warns(Notice, match="fixed rules decide"):
        assert kept_or_made(ABOUT, make) is None
    assert chosen(seconds_of(1.6, 2.5), monkeypatch) == WIDE


def test_a_disk_that_is_full_leaves_the_rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stresslens.core.kept_choices.write_json", full)
    with pytest.warns(Notice, match="No space left"):
        assert chosen(seconds_of(1.6, 2.5), monkeypatch) == WIDE


def test_doctor_shows_what_is_kept_and_how_to_forget_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    assert "kept choice " not in runner.invoke(app, ["doctor"]).output
    chosen(seconds_of(1.6, 2.5), monkeypatch)
    (choices_folder() / "0123456789abcdef.json").write_text("{")
    shown = runner.invoke(app, ["doctor"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for words in ("training of simple_cnn at [1, 28, 28], batch 64", "bfloat16, channels_last", "2.50"):
        assert words in shown.output
    assert "damaged: made anew" in shown.output
    assert f"delete its file in {choices_folder()}" in shown.output.replace("\n", "")
    damaged, kept = json.loads(runner.invoke(app, ["doctor", "--json"]).output)["choices"]
    if "damaged" in kept:
        damaged, kept = kept, damaged
    assert damaged["damaged"]
    assert kept["precision"] == "bfloat16"
    monkeypatch.setenv("STRESSLENS_MEASURE", "0")
    assert "nothing is measured" in runner.invoke(app, ["doctor"]).output
