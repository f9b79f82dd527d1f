"""Values given by position, without a run's images before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import OPTIONS, SMALL
from torch import nn

import stresslens as sl

NET = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
FEW: dict[str, Any] = {"protocol": ["fgsm"], "audit": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    return sl.train("linear", SMALL, out=tmp_path_factory.mktemp("positions"), **OPTIONS)


@pytest.mark.breadth(2)
@pytest.mark.parametrize("given", [0.1, "8/255", [0.05, 0.1], "0:0.1:0.1", ["2/255"]], ids=str)
def test_radii_of_an_attack(given: Any, run: sl.Run) -> None:
    found = sl.attack(run, given, n_images=5, **FEW)
    assert found.result.radii == sl.attack(run, radii=given, n_images=5, **FEW).result.radii


def test_radii_behind_images(run: sl.Run) -> None:
    found = sl.attack(NET, torch.rand(2, 1, 8, 8), [0, 1], 0.25, **FEW)
    assert found.result.radii[-1] == 0.25


def test_an_attack_by_its_name_is_told_how(run: sl.Run) -> None:
    with pytest.raises(sl.ConfigError, match="'fast'; choose attacks by protocol="):
        sl.attack(run, "fast")


def test_an_explainer(run: sl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sl.explain(run, "occlusion", n_images=2).explainer == "occlusion"
    assert sl.explain(run, {"occlusion": {"size": 2}}, n_images=2).explainer == "occlusion"
    with pytest.raises(sl.ConfigError, match="did you mean 'occlusion'"):
        sl.explain(run, "oclusion")
    with pytest.raises(sl.ConfigError, match="explain needs images"):
        sl.explain(NET, "occlusion")


def test_a_split(run: sl.Run) -> None:
    assert sl.evaluate(run, "validation") == sl.evaluate(run, split="validation")
    with pytest.raises(sl.ConfigError, match="expected 'train', 'validation', 'calibration' or 'test'"):
        sl.evaluate(run, "validaton")
