"""What doctor says about torch and torchvision."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stresslens.cli.main import app
from stresslens.core import torch_versions
from stresslens.core.torch_versions import NEWEST, OLDEST, torch_problems

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The problems with these versions. The state of torchvision is `fits`, `cured` or `broken`."""

    def problems(torch: str, vision: str = "0.21.0", needs: str = "2.6.0", state: str = "fits") -> list[str]:
        def imported() -> None:
            if state == "broken":
                raise RuntimeError("operator torchvision::nms does not exist\nmore")

        found = {"torch": torch, "torchvision": vision}
        monkeypatch.setattr(torch_versions, "version", found.__getitem__)
        monkeypatch.setattr(
            torch_versions, "requires", lambda name: ["numpy", f"torch=={needs}", "pillow!=8"]
        )
        monkeypatch.setattr(torch_versions, "torchvision", imported)
        monkeypatch.setattr(torch_versions, "is_cured", lambda: state == "cured")
        return torch_problems()

    return problems


def test_the_oldest_tested_torch_is_the_oldest_that_is_installed() -> None:
    assert f"torch>={OLDEST}" in PROJECT["dependencies"]


@pytest.mark.parametrize("torch", [f"{OLDEST}.0", f"{OLDEST}.1+cu124", f"{NEWEST}.0+cpu", f"{NEWEST}.9"])
def test_a_tested_pair_has_no_problem(torch: str, installed: Callable[..., list[str]]) -> None:
    assert not installed(torch, needs=torch.partition("+")[0])


@pytest.mark.parametrize(
    ("torch", "says"),
    [
        ("2.5.1", "torch 2.5.1 is older than the versions that stresslens is tested with"),
        ("2.100.0+cpu", "torch 2.100.0+cpu is newer than the versions that stresslens is tested with"),
        ("3.0.0a0+git123", "torch 3.0.0a0+git123 is newer"),
    ],
)
def test_an_untested_torch_is_told(torch: str, says: str, installed: Callable[..., list[str]]) -> None:
    (problem,) = installed(torch, needs=torch.partition("+")[0])
    assert problem.startswith(says)
    assert f"{OLDEST} to {NEWEST}" in problem


def test_a_torchvision_of_another_build_is_told_with_the_repair(installed: Callable[..., list[str]]) -> None:
    (problem,) = installed("2.6.0+cpu", state="cured")
    assert "can be imported after stresslens only" in problem
    assert "pip install --force-reinstall torch torchvision" in problem


@pytest.mark.parametrize("state", ["fits", "cured", "broken"])
def test_a_torchvision_of_another_release(state: str, installed: Callable[..., list[str]]) -> None:
    (problem,) = installed("2.7.0", state=state)
    assert problem.startswith("torchvision 0.21.0")
    assert "pip install --force-reinstall torch torchvision" in problem
    if state != "cured":
        assert "made for torch 2.6.0, and torch 2.7.0 is installed" in problem


def test_a_torchvision_that_cannot_be_imported(installed: Callable[..., list[str]]) -> None:
    (problem,) = installed("2.6.0", state="broken")
    assert "cannot be imported (operator torchvision::nms does not exist); install the pair anew" in problem


def test_no_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "torchvision":
            raise torch_versions.PackageNotFoundError(name)
        return f"{OLDEST}.0"

    monkeypatch.setattr(torch_versions, "version", version)
    (problem,) = torch_problems()
    assert problem.startswith("torchvision is not installed; install the pair anew")


@pytest.mark.parametrize("error", [ModuleNotFoundError("torchvision"), RuntimeError("torchvision::nms")])
def test_doctor_says_whether_torchvision_can_be_imported(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def facts() -> dict[str, object]:
        known: dict[str, object] = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
        return known

    def imported() -> None:
        raise error

    assert facts()["torchvision imports"] is True
    monkeypatch.setattr(torch_versions, "torchvision", imported)
    assert facts()["torchvision imports"] is False
    assert facts()["torchvision imports by itself"] is False
