"""Compiled passes of training: when they pay, what is said without a compiler, and their bits."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from trainings import lines, same_bits_after_a_stop, training_of, weights

from stresslens.core.errors import ConfigError
from stresslens.core.kept_choices import ComputeChoice, choices_folder, kept_choices
from stresslens.core.run_folder import RunFolder
from stresslens.study import stages
from stresslens.training import autotune as autotuning
from stresslens.training import pass_choice
from stresslens.training.autotune import autotune, compute_config
from stresslens.training.compiled_net import CompiledNet, why_not_compiled
from stresslens.training.loop import fit
from stresslens.training.pass_choice import PAYS, WORTH, pays
from stresslens.training.task import Task

Make = Callable[..., Task]
NET = {"mlp": {"widths": [6]}}
compiler = pytest.mark.skipif(bool(why_not_compiled("cpu")), reason="there is no C++ compiler")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(autotuning, "_suggestions", {})


@pytest.fixture
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.mark.usefixtures("_no_compiler")
def test_without_a_compiler_it_is_refused_in_words_and_auto_says_no(task_of: Make) -> None:
    with pytest.raises(ConfigError, match=r"train.compile: torch.compile needs a C\+\+ compiler .* CXX"):
        task_of(NET, compile=True)
    task = task_of(NET, compile="auto")
    assert task.compute is not None
    assert task.compute.compile is False
    assert not choices_folder().exists()


def test_the_device_has_to_be_served() -> None:
    assert "does not serve the device mps" in why_not_compiled("mps")


def test_compiling_and_computing_again_exclude_each_other(task_of: Make) -> None:
    with pytest.raises(ConfigError, match="take one of the two"):
        task_of(NET, compile=True, recompute=True)


def made(gain: float, seconds: float, compiling: float) -> ComputeChoice:
    of = {"step": seconds, "compiling": compiling}
    return ComputeChoice({"float32": "contiguous"}, "float32", {"compiled": [gain] * 8}, of)


@given(
    gain=st.floats(0.5, 4).filter(lambda gain: abs(gain - PAYS) > 1e-6),
    seconds=st.floats(1e-4, 10),
    compiling=st.floats(0.1, 100),
    steps=st.integers(1, 10**6),
    shapes=st.integers(1, 2),
)
def test_it_pays_where_the_steps_save_twice_what_compiling_takes(
    gain: float, seconds: float, compiling: float, steps: int, shapes: int
) -> None:
    saved = steps * (seconds - seconds / gain)
    found = pays(made(gain, seconds, compiling), steps, shapes)
    assert found == (gain > PAYS and saved > WORTH * shapes * compiling) or math.isclose(
        saved, WORTH * shapes * compiling, rel_tol=1e-9
    )


def test_a_choice_that_could_not_be_measured_does_not_pay() -> None:
    assert not pays(ComputeChoice({"float32": "contiguous"}, "float32", {"compiled": []}, {}), 10**9, 1)


@compiler
@pytest.mark.parametrize(("epochs", "expected"), [(1, False), (10_000, True)])
def test_auto_weighs_the_whole_training_and_measures_once(
    epochs: int, expected: bool, task_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    monkeypatch.setattr(pass_choice, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(
        pass_choice, "measured_passes", lambda *args: measured.append(args) or made(2.0, 0.01, 10)
    )
    for _ in range(2):
        task = task_of(NET, compile="auto", epochs=epochs)
        assert task.compute is not None
        assert task.compute.compile is expected
        recorded = task.plan.configuration["train"]
        assert recorded.get("compile", False) is expected
    assert len(measured) == 1
    ((_, kept),) = kept_choices()
    assert kept is not None
    assert "compiling: 10 s" in kept.told[2]
    assert compute_config(task).compile is expected


@pytest.mark.usefixtures("_no_compiler")
def test_a_run_goes_on_as_its_folder_says(task_of: Make) -> None:
    """One that was trained before this setting came was not compiled."""
    task = task_of(NET, epochs=1)
    stages.carry_out(task)
    config = RunFolder(task.folder).config
    assert "compile" not in yaml.safe_load(config.read_text())["train"]
    config.write_text(config.read_text().replace("train:\n", "train:\n  compile: true\n", 1))
    asked = replace(task.config.train, compile="auto")
    again = replace(task, compute=None, config=replace(task.config, train=asked))
    (resumed,) = autotune([again], most_threads=1)
    assert resumed.compute is not None
    assert resumed.compute.compile is True


@pytest.mark.slow
def test_the_compiler_is_imported_only_where_it_is_asked_for(tmp_path: Path) -> None:
    code = (
        "import sys, stresslens as sl\n"
        f"sl.train('linear', 'digits', epochs=1, out={str(tmp_path)!r})\n"
        "sys.exit('torch._inductor.compile_fx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@compiler
def test_compiled_trainings_have_their_own_bits(task_of: Make, tmp_path: Path) -> None:
    """Two compiled trainings and a resumed one have the same bits, and those of the plain one to rounding.
    50 images in the batches of 120 leave 20 in the last."""
    settings: dict[str, Any] = {"batch_size": 50, "optimizer": "momentum", "select": "last"}
    plain, other = (
        task_of(NET, folder=tmp_path / str(on), compile=on, epochs=3, **settings) for on in (False, True)
    )
    whole, stopped = (
        task_of(NET, folder=tmp_path / name, compile=True, epochs=3, **settings) for name in ("whole", "part")
    )
    same_bits_after_a_stop(whole, stopped, 2)
    for task in (plain, other):
        stages.carry_out(task)
    assert lines(other) == lines(whole)
    for name, value in weights(whole).items():
        assert value.equal(weights(other)[name])
        torch.testing.assert_close(value, weights(plain)[name], rtol=1e-4, atol=1e-5)
    recorded = yaml.safe_load(RunFolder(whole.folder).environment.read_text())
    assert recorded["compile"] is True


@pytest.mark.slow
@compiler
def test_only_passes_in_training_mode_are_compiled() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
    passes = CompiledNet(net)
    x = torch.rand(5, 3)
    with passes.active():
        net.eval()
        assert net(x).equal(net._call_impl(x))
        assert passes.compiled is None
        net.train()
        with torch.no_grad():
            net(x)
        assert passes.compiled is None
        net(x).sum().backward()
    assert passes.compiled is not None
    assert net._compiled_call_impl is None


@pytest.mark.slow
@compiler
def test_what_torch_cannot_compile_is_told(task_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    training = training_of(task_of({"mlp": {"widths": [7]}}, epochs=1))
    passes = CompiledNet(training.model.get_submodule("net"))
    training.batch_loss.passes = passes.active

    def fails(*args: Any, **kwargs: Any) -> Any:
        import torch._dynamo

        raise torch._dynamo.exc.Unsupported("this")

    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: fails)
    with pytest.raises(ConfigError, match=r"torch cannot compile Sequential here \(.*this"):
        fit(training)
