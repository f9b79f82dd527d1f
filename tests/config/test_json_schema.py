"""The JSON schema accepts every study that the program accepts, and refuses mistakes."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from malformed_studies import VALUES, malformed_studies

from stresslens.config import registry, study_file
from stresslens.config.attribute_docstrings import attribute_docstrings
from stresslens.config.json_schema import FOLDERS, schema_text
from stresslens.config.schema import Train
from stresslens.config.yaml_source import Source
from stresslens.core.errors import ConfigError

ROOT = Path(__file__).parents[2]


@cache
def schema() -> dict[str, Any]:
    return json.loads(schema_text())  # type: ignore[no-any-return]


def wrong(values: Any) -> list[str]:
    validator = Draft202012Validator(schema())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(values)]


def changed(name: str, change: Callable[[Any], Any]) -> dict[str, Any]:
    values = copy.deepcopy(VALUES[name])
    change(values)
    return values


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_the_one_beside_the_studies_is_up_to_date() -> None:
    assert (ROOT / "studies" / "schema.json").read_text(encoding="utf-8") == schema_text(), "run make docs"


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_shipped_study_is_valid_and_names_the_schema(name: str) -> None:
    assert not wrong(VALUES[name])
    text = (ROOT / "studies" / f"{name}.yaml").read_text()
    assert "\n# yaml-language-server: $schema=schema.json\n" in text


VALID: dict[str, dict[str, Any]] = {
    "nothing": {},
    "custom model": {"model": {"nets.py:net": {"depth": 3}}, "runs": {"a": {"model.width": "wide"}}},
    "custom model of a run": {"runs": {"a": {"model": "nets.py:net"}, "b": {"model.width": [1]}}},
    "custom model of a grid": {"grid": {"model": ["mlp", "nets:net"], "model.width": [1]}},
    "custom model of a sweep": {"sweep": {"space": {"model": ["nets:net"], "model.width": [1, 2]}}},
    "custom optimizer of a section": {
        "train": {"optimizer": {"torch.optim:NAdam": None}},
        "grid": {"train.optimizer.momentum_decay": [0.1]},
    },
    "custom attack": {
        "robustness": {"radii": "8/255", "protocol": ["attacks.py:mine", {"pgd": {"steps": 2}}]}
    },
    "radius as a fraction": {"train": {"objective": {"adversarial": {"eps": "8/255"}}}},
    "plug-in within a plug-in": {
        "train": {"objective": {"adversarial": {"eps": 0.1, "attack": {"fgsm": None}}}}
    },
    "option within a plug-in": {"runs": {"a": {"train.objective.adversarial.attack.pgd.steps": 3}}},
    "weights of a run": {"model": {"torchvision": {"name": "resnet18", "weights": {"run": "a"}}}},
    "no attack in one run": {"runs": {"a": {"robustness": None}, "b": None}},
    "option that is also a plug-in": {"runs": {"a": {"model.mlp": 64}}},
    "choices": {
        "sweep": {"space": {"train.lr": {"choices": [0.1, 0.2]}, "model.hidden": {"from": 1, "to": 9}}}
    },
    "words of version 0.1.0": {
        "curve": {"sizes": [10, 20]},
        "train": {"tune": {"every": 2}},
        "explain": {"explainers": ["saliency"], "answer": "label", "choose": "cells"},
        "views": ["counterfactual", {"counterfactual": {}}],
        "grid": {"train.tune.decay": [0.5]},
    },
}


@pytest.mark.parametrize("name", VALID)
def test_valid(name: str) -> None:
    assert not wrong(VALID[name])


INVALID: dict[str, dict[str, Any]] = {
    "unknown key": {"modle": "mlp"},
    "unknown key of a section": {"train": {"epoch": 3}},
    "unknown key of a section of a section": {"train": {"stop": {"patients": 3}}},
    "wrong type": {"train": {"epochs": "three"}},
    "out of range": {"train": {"lr": 0}},
    "unknown choice": {"train": {"select": "best"}},
    "unknown norm": {"robustness": {"radii": [0.1], "norm": "l3"}},
    "missing key": {"robustness": {"norm": "l2"}},
    "unknown plug-in": {"model": "mlpp"},
    "unknown plug-in with options": {"model": {"mlpp": {"widths": [3]}}},
    "two plug-ins": {"model": {"mlp": {}, "linear": {}}},
    "unknown plug-in of a list": {"train": {"augment": ["flip", "flop"]}},
    "unknown plug-in of either form": {"explain": {"explainers": ["gradcam", "gradcm"]}},
    "unknown tracker": {"track": ["tensorbord"]},
    "unknown attack": {"robustness": {"radii": [0.1], "protocol": ["pdg"]}},
    "unknown attack of its own curve": {
        "robustness": {"radii": [0.1], "individual_attacks": [{"attack": "pdg"}]}
    },
    "unknown certificate": {"robustness": {"radii": [0.1], "certificates": ["smooth"]}},
    "unknown option": {"model": {"mlp": {"width": [3]}}},
    "unknown option of a tracker": {"track": [{"wandb": {"projet": "x"}}]},
    "wrong type of an option": {"model": {"mlp": {"widths": 3}}},
    "option out of range": {"train": {"optimizer": {"momentum": {"momentum": -1}}}},
    "unknown plug-in within a plug-in": {"train": {"objective": {"adversarial": {"attack": "pdg"}}}},
    "unknown option within a plug-in": {
        "train": {"objective": {"adversarial": {"attack": {"pgd": {"step": 1}}}}}
    },
    "missing option": {"model": "timm"},
    "missing option beside others": {"model": {"timm": {"dropout": 0.1}}},
    "unknown dotted key": {"runs": {"a": {"train.epoch": 3}}},
    "dotted key of no section": {"runs": {"a": {"train.lr.x": 3}}},
    "wrong type of a dotted key": {"runs": {"a": {"train.epochs": "three"}}},
    "unknown plug-in of a run": {"runs": {"a": {"model": "mlpp"}}},
    "unknown dotted option": {"runs": {"a": {"model.hiden": 3}}},
    "unknown dotted option with the name": {"runs": {"a": {"model.mlp.width": [3]}}},
    "no dotted option": {"runs": {"a": {"train.loss.": 3}}},
    "no dotted option behind the name": {"runs": {"a": {"train.loss.mse.": 3}}},
    "wrong type of a dotted option": {"runs": {"a": {"model.batch_norm": 3}}},
    "unknown option beside another custom plug-in": {
        "train": {"loss": "losses.py:mine"},
        "runs": {"a": {"model.hiden": 3}},
    },
    "unknown key of the grid": {"grid": {"train.epoch": [3]}},
    "unknown option of the grid": {"grid": {"train.optimizer.momentun": [0.5]}},
    "wrong type in the grid": {"grid": {"train.epochs": [3, "four"]}},
    "no list in the grid": {"grid": {"train.epochs": 3}},
    "unknown key of a space": {"sweep": {"space": {"train.learning": [1, 2]}}},
    "unknown option of a space": {"sweep": {"space": {"model.hiden": [1, 2]}}},
    "wrong type of a choice": {"sweep": {"space": {"train.optimizer": ["adam", 3]}}},
    "wrong type of choices": {"sweep": {"space": {"train.epochs": {"choices": ["a"]}}}},
    "unknown key of a range": {"sweep": {"space": {"train.lr": {"from": 0.1, "until": 1}}}},
    "data in a space": {"sweep": {"space": {"data.size": [8, 16]}}},
    "unknown key of a trial": {"sweep": {"settings": [{"train.learning": 1}]}},
    "unknown key of the sweep": {"sweep": {"trails": 3}},
    "unknown key of a contrast": {"contrasts": {"a": {"pair": []}}},
    "pair of three": {"contrasts": {"a": {"pairs": [["a", "b", "c"]]}}},
    "no repeats": {"repeats": 0},
    "unknown executor": {"executor": "slurm"},
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid(name: str) -> None:
    assert wrong(INVALID[name])


@pytest.mark.breadth(10)
@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_changed_study_is_invalid(name: str) -> None:
    def misspelt(values: Any) -> None:
        values["runs"] = {**(values.get("runs") or {}), "more": {"train.epohcs": 1}}

    def unknown_section(values: Any) -> None:
        values["trian"] = values.pop("train", {})

    def unknown_data(values: Any) -> None:
        values["data"] = {"minst": {}}

    def word(values: Any) -> None:
        values["train"] = {**(values.get("train") or {}), "batch_size": "many"}

    for change in (misspelt, unknown_section, unknown_data, word):
        assert wrong(changed(name, change)), change.__name__


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[*HealthCheck])
@given(content=malformed_studies())
def test_what_the_program_reads_is_valid(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.mktemp("study") / "study.yaml"
    (file.parent / "plugins").symlink_to(ROOT / "studies" / "plugins")
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            study_file.read_study(file)
        except ConfigError:
            return
    assert not wrong(Source.read(file).values)


def test_every_plugin_and_option_has_its_help_and_default() -> None:
    for folder in FOLDERS:
        for name in registry.names(folder):
            definition = schema()["$defs"][f"{folder}.{name}"]
            options = registry.declared_by(folder, registry.plugin(folder, name))
            assert set(definition["properties"]) == set(options)
            assert definition["description"]
            for option, parameter in options.items():
                given = definition["properties"][option]
                assert ("default" in given) == (parameter.default is not parameter.empty), (name, option)
    assert schema()["$defs"]["attacks.pgd"]["properties"]["steps"]["default"] == 40
    assert schema()["$defs"]["Train"]["properties"]["select"]["enum"] == [
        "accuracy",
        "loss",
        "robust",
        "auto",
        "last",
    ]


@pytest.mark.parametrize(
    "section", ["VariantConfig", "Train", "Robustness", "Explain", "Views", "Sweep", "Range"]
)
def test_every_key_has_its_help(section: str) -> None:
    keys = schema()["$defs"][section]["properties"]
    assert [key for key, described in keys.items() if not described.get("description")] == []


def test_a_key_is_described_by_the_text_below_it_also_under_another_name() -> None:
    keys = schema()["$defs"]["Range"]["properties"]
    assert keys["from"]["description"] == "The smallest value."
    assert (
        attribute_docstrings(Train)["epochs"]
        == schema()["$defs"]["Train"]["properties"]["epochs"]["description"]
    )


@pytest.mark.slow
def test_the_program_does_not_read_its_own_source_when_it_starts() -> None:
    code = (
        "import inspect, torch, pydantic; inspect.getsource = inspect.getblock = None; "
        "import stresslens.config.study_file"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
