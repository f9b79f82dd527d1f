"""What the tests share: a small data set, a task on it, the command line, and torch as the commands
leave it."""

from __future__ import annotations

import functools
import gc
import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
import typer.main
import typer.testing

from stresslens.config import study_file
from stresslens.core.data import Data
from stresslens.core.files import write_atomically, write_json
from stresslens.core.layer_table import LayerTable
from stresslens.core.run_folder import RunFolder
from stresslens.core.sampling import balanced_subset
from stresslens.plugins.datasets.digits import digits
from stresslens.training.autotune import autotune
from stresslens.training.task import Task

Type = Callable[..., tuple[int, str, str]]

hypothesis.settings.register_profile("all", deadline=None)
hypothesis.settings.register_profile("fast", deadline=None, max_examples=25)


gc.disable()  # until all tests are collected, nothing is let go


def pytest_configure(config: pytest.Config) -> None:
    """`make test` draws fewer examples where a test does not say how many."""
    hypothesis.settings.load_profile("fast" if config.getoption("markexpr") == "not slow" else "all")


def pytest_collection_finish() -> None:
    """What is there before the first test stays to the end: the garbage collector need not walk it."""
    gc.freeze()
    gc.enable()


def _few(cases: list[pytest.Item], shift: int) -> list[pytest.Item]:
    """As many as `breadth` asks for, at even distances; without a number, so many that each value of each
    parameter is there once."""
    marker = cases[0].get_closest_marker("breadth")
    if marker is not None and marker.args:
        (number,) = marker.args
        return [cases[(k * len(cases) // number + shift) % len(cases)] for k in range(number)]
    values = {case: {(name, id(value)) for name, value in case.callspec.params.items()} for case in cases}
    seen: set[tuple[str, int]] = set()
    kept = []
    for enough in (all, any):  # first the cases in which everything is new
        for case in cases:
            if enough(value not in seen for value in values[case]):
                seen |= values[case]
                kept.append(case)
    return kept


def _skip_without_a_gpu(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on a GPU are skipped without one. Of a test with many cases that is marked `breadth`, some stay
    fast and the others become slow. The tests of a file do not choose the same cases: one begins where the
    one before it has its second."""
    _skip_without_a_gpu(items)
    functions: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("breadth") and not item.get_closest_marker("slow"):
            functions.setdefault((item.path, item.nodeid.split("[")[0]), []).append(item)
    number_in_file = Counter[Path]()
    for (path, _), cases in functions.items():
        kept = _few(cases, number_in_file[path]) if hasattr(cases[0], "callspec") else cases
        number_in_file[path] += 1
        for case in cases:
            if case not in kept:
                case.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_for_what_tests_share() -> None:
    """Fixtures of a module are made before those of its first test."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """What a test writes need not outlast a power failure. Processes that tests start do wait."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_command_line() -> Iterator[None]:
    """Typer reads the signatures of all commands whenever one is typed, a sixth of a second; here once."""
    once = functools.cache(typer.main.get_command)

    def as_new(app: typer.Typer) -> Any:
        commands = [once(app)]
        for command in commands:
            command._help_option = None  # which was made for the words before
            commands += getattr(command, "commands", {}).values()
        return commands[0]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typer.main, "get_command", as_new)
        patched.setattr(typer.testing, "_get_command", as_new)
        yield


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests run side by side: one thread each. Downloads and caches go to a folder of the test session."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # a command changes it
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> Data:
    """Digits with 120 training, 60 validation and 60 test images, class-balanced."""
    data = digits()
    assert data.validation is not None
    assert data.test is not None
    kept = {
        name: split.select(balanced_subset(split.labels, size, seed=0))
        for (name, split), size in zip(data.splits.items(), (120, 60, 60))
    }
    return replace(data, name="small digits", **kept)


@pytest.fixture
def task_of(small: Data, tmp_path: Path) -> Callable[..., Task]:
    """A settled task on the small digits: `task_of("mlp", epochs=3, …)`, float32 on one thread
    unless said otherwise."""

    def make(
        model: Any = "linear",
        *,
        folder: Path = tmp_path / "run" / "seed-0",
        seed: int = 0,
        data: Data | None = None,
        **train: Any,
    ) -> Task:
        settings = {
            "epochs": 3,
            "precision": "float32",
            "threads": 1,
            "memory_format": "contiguous",
            "device": "cpu",
            **train,
        }
        config = study_file.variant_config_from(
            {"model": model, "train": settings, "data": "digits"}, tmp_path
        )
        task = Task("tests", "run", seed, config, tmp_path, folder, data or small)
        return autotune([task], most_threads=1)[0]

    return make


@pytest.fixture
def type_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Type:
    """Types a command in an empty folder: exit code, standard output, standard error."""
    from stresslens.cli import main

    monkeypatch.chdir(tmp_path)

    def typed(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stresslens", *words])
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            main.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return typed


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., RunFolder]:
    """A run's folder as far as a comparison reads it: `made("a", 0, right)`, right (images,) of two
    classes."""

    def make(
        run: str, seed: int, right: np.ndarray, *, labels: np.ndarray | None = None, **facts: Any
    ) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / "study" / run / f"seed-{seed}")
        truth = np.arange(len(right)) % 2 if labels is None else labels
        scores = np.eye(2)[np.where(right > 0, truth, 1 - truth)]
        write_atomically(
            folder.predictions("test"),
            lambda file: np.savez(
                file, scores=scores, labels=truth, index=np.arange(len(truth)), kind="logits"
            ),
        )
        data = {"name": "made", "splits": {"test": "0"}, **facts}
        record = {
            "format": 1,
            "status": "finished",
            "stages": {},
            "data": data,
            "study": "study",
            "run": run,
            "seed": seed,
        }
        record |= {
            "training": {"seconds": 1.0 + 0.1 * seed, "epochs": 2},
            "layers": LayerTable((), 10, 10, 0, 0, 0).as_json(),
        }
        write_json(folder.record, record)
        return folder

    return make
