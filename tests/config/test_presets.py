"""Presets: each is a valid study, what a study changes of it, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stresslens.config import study_file
from stresslens.config.presets import presets
from stresslens.core.errors import ConfigError


def config(**values: Any) -> study_file.VariantConfig:
    return study_file.expand_study(values, name="s", base=Path.cwd()).variants[0].config


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_the_same_as_its_settings(name: str) -> None:
    preset = presets()[name]
    assert preset.purpose.endswith(".")
    assert config(preset=name) == config(**preset.settings)


def test_a_study_changes_keys_of_sections_and_whole_plugins() -> None:
    settings = presets()["scratch-small"].settings
    found = config(preset="scratch-small", model="mlp", train={"epochs": 2, "optimizer": "sgd"})
    changed = {**settings["train"], "epochs": 2, "optimizer": "sgd"}
    assert found == config(model="mlp", train=changed)
    assert config(preset="scratch-small", estimator="knn").estimator == "knn"


def test_runs_and_overrides_change_a_preset_too() -> None:
    runs = {"a": {"train.optimizer.weight_decay": 0.5}}
    study = study_file.expand_study(
        {"runs": runs}, ["preset=scratch-small", "train.lr=0.5"], name="s", base=Path.cwd()
    )
    train = study.variants[0].config.train
    assert train.optimizer == {"timm": {"name": "adamw", "weight_decay": 0.5}}
    assert (train.lr, train.epochs) == (0.5, 30)


def test_an_unknown_preset_is_told() -> None:
    with pytest.raises(ConfigError, match="no preset is called 'scratch-smal'; did you mean 'scratch-small'"):
        config(preset="scratch-smal")


@pytest.mark.parametrize("value", [3, ["airbench"], {"airbench": {}}])
def test_a_preset_that_is_no_name_is_told(value: object) -> None:
    with pytest.raises(ConfigError, match="preset: input should be a valid string"):
        config(preset=value)


def test_presets_are_printed_as_yaml(type_: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = type_("list", "presets", "scratch*")
    assert code == 0
    assert yaml.safe_load(out) == {"preset": "scratch-small", **presets()["scratch-small"].settings}
