"""A custom plug-in's file is relative to the study file, wherever the command is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresslens.config.study_file import read_study
from stresslens.training.task import Task

SOURCES = {
    "train.objective": "def own(net, inputs, y):\n    return net(inputs).square().mean()\n",
    "train.loss": "def own(logits, y):\n    return logits.square().mean()\n",
    "train.optimizer": "def own(parameters, lr):\n    return None\n",
    "train.schedule": "def own(optimizer, steps):\n    return None\n",
    "train.augment": "def own(x, y):\n    return x, y\n",
    "model": "from torch import nn\n\ndef own(shape, classes):\n    return nn.Flatten()\n",
    "robustness.individual_attacks": "def own(model, x, y, ball):\n    return x\n",
    "explain": "def own(model, x, y):\n    return None\n",
    "views": "def own(model):\n    return None\n",
}


@pytest.mark.parametrize("key", SOURCES)
def test_it_is_found_beside_the_study(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, elsewhere = tmp_path / "lab", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "own.py").write_text(SOURCES[key])
    value = (
        "own.py:own"
        if key not in ("train.augment", "explain", "views", "robustness.individual_attacks")
        else "[own.py:own]"
    )
    study = folder / "study.yaml"
    study.write_text(f"data: digits\nruns:\n  a: {{{key}: {value}}}\nrobustness: {{radii: [0.1]}}\n")
    monkeypatch.chdir(elsewhere)
    (variant,) = read_study(study).variants
    assert variant.name == "a"


def test_an_objective_of_ones_own_is_resolved_for_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(SOURCES["train.objective"])
    (tmp_path / "study.yaml").write_text("data: digits\nmodel: linear\ntrain: {objective: own.py:own}\n")
    monkeypatch.chdir(tmp_path.parent)
    study = read_study(tmp_path / "study.yaml")
    (variant,) = study.variants
    task = Task("s", "a", 0, variant.config, tmp_path, tmp_path / "run")
    assert task.plan.objective.function.__name__ == "own"
