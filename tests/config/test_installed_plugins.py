"""Plug-ins that installed packages bring by entry points."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.completion import plugins_of
from stresslens.cli.main import app
from stresslens.config import installed_plugins as found
from stresslens.config import own_plugins, registry
from stresslens.config.json_schema import schema_text
from stresslens.config.registry import catalogues
from stresslens.config.setting_keys import option_keys, unknown_setting
from stresslens.core.errors import ConfigError, Notice

MODULE = """
from torch import nn
from torch.nn.functional import cross_entropy

def doubled(logits, y, *, times: float = 2.0):
    "Cross-entropy, doubled."
    return times * cross_entropy(logits, y)

class Net(nn.Sequential):
    "One layer."
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with entry points where Python finds it."""
    place = tmp_path / "site"
    place.mkdir()

    def forget() -> None:
        found.installed_plugins.cache_clear()
        found.warn_of_hidden.cache_clear()

    def put(package: str, version: str, points: dict[str, dict[str, str]], text: str = MODULE) -> None:
        module = package.replace("-", "_")
        (place / f"{module}.py").write_text(text)
        info = place / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        groups = (
            f"[stresslens.{folder}]\n" + "".join(f"{name} = {value}\n" for name, value in named.items())
            for folder, named in points.items()
        )
        (info / "entry_points.txt").write_text("\n".join(groups))
        forget()

    monkeypatch.syspath_prepend(str(place))
    yield put
    forget()
    for name in [name for name in sys.modules if name.startswith(("stresslens_foo", "stresslens_bar"))]:
        own_plugins._loaded.pop(name, None)
        del sys.modules[name]


POINTS = {"losses": {"doubled": "stresslens_foo:doubled"}, "models": {"one_layer": "stresslens_foo:Net"}}


def test_it_is_named_like_a_built_in_one(install: Install) -> None:
    install("stresslens-foo", "1.2", POINTS)
    bound = registry.resolve("losses", {"doubled": {"times": 3.0}}, trust=False)
    assert bound.options == {"times": 3.0}
    assert registry.resolve("models", "one_layer", trust=False).needs == ("shape", "classes")
    assert "doubled" in registry.all_names("losses")
    assert "doubled" not in registry.names("losses")
    with pytest.raises(ConfigError, match="did you mean 'doubled'"):
        registry.plugin("losses", "dubled")


@pytest.mark.parametrize("folder", registry.VOCABULARY)
def test_every_kind_has_its_group(folder: str, install: Install) -> None:
    install(
        "stresslens-foo",
        "1.2",
        {folder: {"nothing_at_all": "stresslens_foo:nothing"}},
        "def nothing(): ...\n",
    )
    assert registry.plugin(folder, "nothing_at_all").__name__ == "nothing"


def test_it_is_listed_with_its_package(install: Install) -> None:
    install("stresslens-foo", "1.2", POINTS)
    listed = json.loads(CliRunner().invoke(app, ["list", "losses", "--json"]).output)
    losses = listed["losses"]
    assert losses["doubled"] == {
        "options": "times=2.0",
        "help": "Cross-entropy, doubled.",
        "package": "stresslens-foo 1.2",
    }
    assert "package" not in losses["cross_entropy"]
    said = " ".join(CliRunner().invoke(app, ["list", "losses"]).output.replace("│", " ").split())
    assert "stresslens-foo" in said


def test_its_package_and_version_are_in_the_runs_environment(install: Install, tmp_path: Path) -> None:
    install("stresslens-foo", "1.2", POINTS)
    study = tmp_path / "s.yaml"
    study.write_text(
        "data: {digits: {subset: 100}}\n"
        "train: {epochs: 1, precision: float32, threads: 1}\n"
        "runs:\n  theirs: {model: one_layer, train.loss: doubled}\n  ours: {model: linear}\n"
    )
    sl.run(study, out=tmp_path / "runs")
    kept: dict[str, Any] = {}
    for name in ("theirs", "ours"):
        folder = tmp_path / "runs" / "s" / name / "seed-0"
        kept[name] = json.loads((folder / "environment.json").read_text()).get("plugins")
    assert kept == {"theirs": {"stresslens-foo": "1.2"}, "ours": None}
    sl.load(tmp_path / "runs" / "s" / "theirs" / "seed-0")  # trusted, as installed code is


def test_a_built_in_name_stays_the_built_in_plug_in_and_says_so(install: Install) -> None:
    install("stresslens-foo", "1.2", {"losses": {"cross_entropy": "stresslens_foo:doubled"}})
    with pytest.warns(
        Notice, match=r"that of stresslens-foo 1\.2 has the same name .*'stresslens_foo:doubled'"
    ):
        bound = registry.resolve("losses", "cross_entropy")
    assert bound.function.__module__ == "stresslens.plugins.losses.cross_entropy"
    assert registry.resolve("losses", "stresslens_foo:doubled").function.__name__ == "doubled"


def test_a_name_of_two_packages_is_refused(install: Install) -> None:
    install("stresslens-foo", "1.2", POINTS)
    install("stresslens-bar", "3", {"losses": {"doubled": "stresslens_bar:doubled"}})
    with pytest.raises(
        ConfigError, match=r"'doubled' is a plug-in of stresslens-bar 3 .* and stresslens-foo 1\.2"
    ):
        registry.resolve("losses", "doubled")


@pytest.mark.parametrize(
    ("value", "text", "says"),
    [
        ("stresslens_foo:gone", MODULE, "defines no function 'gone'"),
        ("stresslens_foo:doubled", "import nothing_of_this_name\n", "cannot import stresslens_foo"),
        (
            "stresslens_foo:doubled",
            "def doubled(a, b): ...\n",
            "asks for a, b; a loss may ask for: logits, y",
        ),
    ],
    ids=["no such function", "does not import", "another signature"],
)
def test_one_that_is_broken_is_told_with_its_package(
    value: str, text: str, says: str, install: Install
) -> None:
    install("stresslens-foo", "1.2", {"losses": {"mine": value}}, text)
    with pytest.raises(ConfigError, match=rf"the plug-in 'mine' of stresslens-foo 1\.2: .*{says}"):
        registry.resolve("losses", "mine")
    shown = CliRunner().invoke(app, ["list", "losses", "--json"])
    assert shown.exit_code == 0
    assert "It cannot be used" in shown.output


ODD = """
from torch.nn.functional import cross_entropy

class Kind:
    pass

def odd(logits, y, *, times: float = 2.0, kind: Kind = Kind(), most: float = float("inf")):
    "Cross-entropy."
    return times * cross_entropy(logits, y)
"""


def test_it_is_in_the_schema_and_completed(install: Install) -> None:
    points = {"losses": {"odd": "stresslens_foo:odd", "gone": "stresslens_foo:gone"}}
    install("stresslens-foo", "1.2", points, ODD)
    schema = json.loads(schema_text())
    options = schema["$defs"]["losses.odd"]["properties"]
    assert options["times"] == {"type": "number", "default": 2.0}
    assert "default" not in options["kind"]
    assert "losses.gone" not in schema["$defs"], "it cannot be used"
    study = Draft202012Validator(schema)
    assert study.is_valid({"train": {"loss": {"odd": {"times": 3, "kind": [1]}}}})
    assert not study.is_valid({"train": {"loss": {"odd": {"time": 3}}}})
    assert plugins_of("losses")("") == sorted([*registry.names("losses"), "gone", "odd"])


def test_its_options_are_meant_by_a_key_and_its_catalogue_is_searched(
    install: Install, request: pytest.FixtureRequest
) -> None:
    text = (
        MODULE
        + """
def zoo(shape, classes, *, name: str = "small", width_of_zoo: int = 3):
    return Net(shape, classes)

def catalogue():
    return {"small": {}, "large": {"best": {"name": "large", "weights": "best"}}}
"""
    )
    points = {"models": {"zoo": "stresslens_foo:zoo", "gone": "stresslens_foo:gone"}}
    install("stresslens-foo", "1.2", points, text)
    option_keys.cache_clear()
    request.addfinalizer(option_keys.cache_clear)
    assert unknown_setting("width_of_zoo", {}) == (
        "unknown key; did you mean model.width_of_zoo (an option of zoo)?"
    )
    assert list(catalogues()) == ["openclip", "timm", "torchvision", "zoo"]
    shown = json.loads(CliRunner().invoke(app, ["list", "models", "small", "--json"]).stdout)
    assert shown["zoos"]["zoo"] == {
        "size": 2,
        "found": {"small": {"weights": {}, "in_study": "{zoo: {name: small}}"}},
    }
