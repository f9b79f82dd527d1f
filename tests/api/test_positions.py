"""Values given by position, without a run's images before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import Finished

import stresslens as sl

FEW: dict[str, Any] = {"protocol": ["fgsm"], "audit": False}


@pytest.mark.parametrize("given", [0.1, "8/255", [0.05, 0.1], "0:0.1:0.1", ["2/255"]], ids=str)
def test_radii_of_an_attack(given: Any, subjects: Finished) -> None:
    found = sl.attack(subjects.run, given, n_images=5, **FEW)
    assert found.result.radii == sl.attack(subjects.run, radii=given, n_images=5, **FEW).result.radii


def test_radii_behind_images(subjects: Finished) -> None:
    found = sl.attack(subjects.net, torch.rand(2, 1, 8, 8), [0, 1], 0.25, **FEW)
    assert found.result.radii[-1] == 0.25


def test_an_attack_by_its_name_is_told_how(subjects: Finished) -> None:
    with pytest.raises(sl.ConfigError, match="'fast'; choose attacks by protocol="):
        sl.attack(subjects.run, "fast")


def test_an_explainer(subjects: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sl.explain(subjects.run, "occlusion", n_images=2).explainer == "occlusion"
    assert sl.explain(subjects.run, {"occlusion": {"size": 2}}, n_images=2).explainer == "occlusion"
    with pytest.raises(sl.ConfigError, match="did you mean 'occlusion'"):
        sl.explain(subjects.run, "oclusion")
    with pytest.raises(sl.ConfigError, match="explain needs images"):
        sl.explain(subjects.net, "occlusion")


def test_a_split(subjects: Finished) -> None:
    assert sl.evaluate(subjects.run, "validation") == sl.evaluate(subjects.run, split="validation")
    with pytest.raises(sl.ConfigError, match="expected 'train', 'validation' or 'test'"):
        sl.evaluate(subjects.run, "validaton")
