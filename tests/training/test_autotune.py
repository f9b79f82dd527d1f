"""The compute settings of a run: fixed, kept or recorded, and never those of a busy moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.core import compute_choice
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import Notice
from stresslens.core.kept_choices import choices_folder
from stresslens.core.run_folder import RunFolder
from stresslens.training import autotune as autotuning
from stresslens.training.autotune import autotune
from stresslens.training.task import Task

OPEN = {"precision": "auto", "threads": "auto", "memory_format": "auto", "device": "auto"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(autotuning, "_suggestions", {})


def _open(task: Task, **train: Any) -> Task:
    return replace(
        task, compute=None, config=replace(task.config, train=replace(task.config.train, **OPEN, **train))
    )


def decided(task: Task, most_threads: int = 2) -> ComputeConfig:
    (tuned,) = autotune([task], most_threads=most_threads)
    assert tuned.compute is not None
    return tuned.compute


def test_a_small_net_is_trained_as_the_rules_say(task_of: Callable[..., Task]) -> None:
    assert decided(_open(task_of("simple_cnn"))) == ComputeConfig("cpu", "float32", 1, "channels_last")
    assert decided(_open(task_of("mlp"))) == ComputeConfig("cpu", "float32", 1, "contiguous")
    assert not choices_folder().exists()


def test_threads_follow_from_the_batch(task_of: Callable[..., Task]) -> None:
    for batch_size, threads in ((16, 1), ("full", 1)):
        assert decided(_open(task_of("simple_cnn"), batch_size=batch_size)).threads == threads
    net = {"simple_cnn": {"channels": 64}}
    assert [decided(_open(task_of(net), batch_size=120), most).threads for most in (1, 2, 64)] == [1, 2, 3]


def test_a_net_without_training_steps_is_laid_out_too(task_of: Callable[..., Task]) -> None:
    found = decided(_open(task_of("simple_cnn", epochs=0)))
    assert (found.precision, found.memory_format) == ("float32", "channels_last")


@pytest.mark.parametrize("asked", [{"memory_format": "contiguous"}, {"threads": 2}, {"precision": "float64"}])
def test_what_is_asked_for_is_kept(task_of: Callable[..., Task], asked: dict[str, Any]) -> None:
    task = _open(task_of("simple_cnn"))
    task = replace(task, config=replace(task.config, train=replace(task.config.train, **asked)))
    found = decided(task)
    assert {key: getattr(found, key) for key in asked} == asked


@pytest.fixture
def _bfloat16_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_choice, "MEASURED_FROM", 0.0)
    monkeypatch.setattr(compute_choice, "bfloat16_in_hardware", lambda device: True)
    monkeypatch.setattr(
        compute_choice, "gains_in_pairs", lambda usual, other, clock: [3.0] * compute_choice.PAIRS
    )


@pytest.mark.usefixtures("_bfloat16_wins")
def test_the_runs_of_a_study_get_one_precision(
    task_of: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [
        replace(_open(task_of(model)), folder=tmp_path / model / "seed-0") for model in ("simple_cnn", "mlp")
    ]
    found = [task.compute for task in autotune(tasks, most_threads=1) if task.compute]
    assert [each.precision for each in found] == ["bfloat16", "bfloat16"]
    takes = autotuning._takes
    monkeypatch.setattr(
        autotuning,
        "_takes",
        lambda narrow, task, *rest: task.config.model != "mlp" and takes(narrow, task, *rest),
    )
    autotuning._suggestions.clear()
    found = [task.compute for task in autotune(tasks, most_threads=1) if task.compute]
    assert [each.precision for each in found] == ["float32", "float32"]


def a_loss_without_bfloat16(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if logits.dtype == torch.bfloat16:
        raise RuntimeError("not implemented for 'BFloat16'")
    return torch.nn.functional.cross_entropy(logits, y)


@pytest.mark.usefixtures("_bfloat16_wins")
def test_bfloat16_is_not_chosen_where_the_loss_cannot_be_computed_in_it(
    task_of: Callable[..., Task],
) -> None:
    own = f"{__file__}:a_loss_without_bfloat16"
    assert decided(_open(task_of("mlp", loss=own))).precision == "float32"
    assert decided(_open(task_of("mlp"))).precision == "bfloat16"


def trained(out: Path) -> sl.Run:
    return sl.train({"simple_cnn": {"channels": 4, "hidden": 16}}, "digits", epochs=1, lr=0.01, out=out)


@pytest.mark.usefixtures("_bfloat16_wins")
def test_a_run_goes_on_as_its_folder_says(tmp_path: Path, task_of: Callable[..., Task]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STRESSLENS_MEASURE", "0")
        folder = RunFolder(trained(tmp_path).folder)
    written = folder.config.read_bytes()
    recorded = yaml.safe_load(written)["train"]
    assert (recorded["precision"], recorded["memory_format"]) == ("float32", "channels_last")
    fresh = task_of("simple_cnn", folder=tmp_path / "fresh" / "seed-0")
    assert decided(_open(fresh)).precision == "bfloat16"
    again = trained(tmp_path)
    assert again.folder == folder.path
    assert folder.config.read_bytes() == written


@pytest.mark.breadth(1)
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_evaluate_gives_the_bits_of_the_run(tmp_path: Path, memory_format: str) -> None:
    run = sl.train("simple_cnn", "digits", epochs=1, out=tmp_path, memory_format=memory_format, threads=1)
    file = RunFolder(run.folder).predictions("test")
    with np.load(file) as arrays:
        before = arrays["scores"]
    result = CliRunner().invoke(app, ["evaluate", str(run.folder)])
    assert result.exit_code == 0, result.output
    with np.load(file) as arrays:
        assert np.array_equal(arrays["scores"], before)


def test_where_nothing_can_be_kept_a_run_is_trained_by_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices_folder().parent.mkdir(parents=True)
    choices_folder().write_text("in the way")
    monkeypatch.setattr(compute_choice, "MEASURED_FROM", 0.0)
    with pytest.warns(Notice, match="fixed rules decide"):
        run = trained(tmp_path / "runs")
    assert yaml.safe_load(RunFolder(run.folder).config.read_text())["train"]["precision"] == "float32"


@pytest.mark.slow
def test_the_same_call_computes_the_same_bits(tmp_path: Path) -> None:
    runs = [trained(tmp_path / name) for name in ("one", "other")]
    one, other = (RunFolder(run.folder).weights.read_bytes() for run in runs)
    assert one == other
    model = runs[0].model()
    x = torch.rand(300, 1, 8, 8)
    y = model(x).argmax(1)
    attacks = [sl.attack(model, x[:40], y[:40], radii=[0.05], audit=False) for _ in range(2)]
    for name, values in attacks[0].arrays.items():
        assert np.array_equal(values, attacks[1].arrays[name]), name
    assert attacks[0].result.compute == attacks[1].result.compute
    maps = [sl.explain(model, x[:4], "integrated_gradients").maps for _ in range(2)]
    assert np.array_equal(*maps)
    assert sl.evaluate(model, x, y) == sl.evaluate(model, x, y)
