"""`stresslens list`: plug-ins, studies and the models of the zoos, by pattern and without a network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stresslens.config import registry, study_file
from stresslens.config.catalogues import matches, search_catalogues
from stresslens.config.shipped_studies import shipped_studies
from stresslens.config.yaml_source import parse_value
from stresslens.core import extras
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import RunRecord, write_record

Type = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("", "resnet18", True),
        ("resnet*", "resnet18", True),
        ("resnet*", "wide_resnet50", False),
        ("resnet", "wide_resnet50", True),
        ("RESNET18", "resnet18", True),
        ("rn5?", "RN50", True),
        ("[ab]*", "adam", True),
        ("vit-b", "ViT-B-32", True),
    ],
)
def test_matches(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def zoos(type_: Type, pattern: str) -> dict[str, Any]:
    code, out, _ = type_("list", "models", pattern, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)["zoos"]
    return found


def test_a_pattern_searches_every_zoo(type_: Type) -> None:
    found = zoos(type_, "resnet18")
    assert set(found) == {"openclip", "timm", "torchvision"}
    assert found["torchvision"]["size"] == 80
    assert found["torchvision"]["found"] == {
        "resnet18": {
            "weights": {"IMAGENET1K_V1": {"name": "resnet18", "weights": "IMAGENET1K_V1"}},
            "in_study": "{torchvision: {name: resnet18, weights: IMAGENET1K_V1}}",
        }
    }
    timm = found["timm"]["found"]
    assert {"resnet18", "resnet18d", "seresnet18"} <= set(timm)
    assert timm["resnet18"]["in_study"] == "{timm: {name: resnet18.a1_in1k, pretrained: true}}"
    assert timm["seresnet18"]["weights"] == {}
    assert timm["seresnet18"]["in_study"] == "{timm: {name: seresnet18}}"
    assert found["openclip"]["found"] == {}


def test_the_table_has_counts_and_how_to_write_it(type_: Type) -> None:
    code, out, _ = type_("list", "models", "ViT-B-32-quickgelu")
    assert code == 0
    assert "openclip: 1 of" in out
    assert "{openclip: {name: ViT-B-32-quickgelu, weights:" in out
    assert "torchvision: none of 80 is like 'ViT-B-32-quickgelu'" in out
    assert "models: none of" in out
    assert "more of timm; narrow the pattern" in type_("list", "models", "resnet*")[1]


@pytest.mark.parametrize("name", ["resnet50", "RN50", "vit_tiny_patch16_224"])
def test_what_it_says_is_a_model_of_a_study(name: str) -> None:
    models = [model for zoo in search_catalogues(name) for model in zoo.found if model.name == name]
    assert models
    for model in models:
        assert study_file.variant_config_from({"model": parse_value(model.in_study)}, base=None).model  # type: ignore[arg-type]
        for options in model.weights.values():
            publish = registry.beside(registry.plugin("models", model.plugin), "published")
            assert publish is not None
            assert publish(**options) is not None


@pytest.mark.parametrize(("module", "extra"), [("timm", "timm"), ("open_clip", "clip")])
def test_a_zoo_that_is_not_installed(
    type_: Type, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == module else object())
    code, out, _ = type_("list", "models", "resnet18")
    assert code == 0
    assert "not searched" in out
    assert f"pip install 'stresslens[{extra}]'" in out
    assert "torchvision: 1 of 80" in out


def test_without_a_pattern_the_zoos_are_named_and_not_searched(
    type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("timm", "open_clip"):
        monkeypatch.setitem(sys.modules, library, None)  # an import fails
    code, out, _ = type_("list", "models")
    assert code == 0
    assert out.endswith(
        "search the models of openclip, timm, torchvision: stresslens list models 'resnet*'\n"
    )
    assert "cannot be imported" not in out


def test_a_pattern_of_another_kind(type_: Type) -> None:
    assert set(json.loads(type_("list", "losses", "m*", "--json")[1])["losses"]) == {"mse"}
    assert type_("list", "losses", "zzz") == (0, "losses: none of 5 is like 'zzz'\n", "")


@pytest.mark.breadth(4)
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["quickstart/adam", "quickstart/sgd", "slow/quick-adam"]),
        ("quick*", ["quickstart/adam", "quickstart/sgd", "slow/quick-adam"]),
        ("quickstart", ["quickstart/adam", "quickstart/sgd"]),
        ("s??", ["quickstart/sgd"]),
        ("slow", ["slow/quick-adam"]),
        ("quick*/adam", ["quickstart/adam"]),
        ("*/adam/seed-0", ["quickstart/adam"]),
        ("runs/q*", ["quickstart/adam", "quickstart/sgd"]),
        ("ru*s", []),
        ("seed-1", []),
    ],
)
def test_runs_by_a_part_of_their_path(type_: Type, tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("quickstart/adam", "quickstart/sgd", "slow/quick-adam"):
        write_record(RunFolder(tmp_path / "runs" / name / "seed-0"), RunRecord(status="finished"))
    code, out, _ = type_("list", "runs", pattern, "--json")
    assert code == 0
    assert list(json.loads(out)) == [f"runs/{name}/seed-0" for name in expected]


def test_studies(type_: Type) -> None:
    listed = json.loads(type_("list", "studies", "digits*", "--json")[1])
    assert set(listed) == {name for name in shipped_studies() if name.startswith("digits")}
    assert listed["digits-hardening"]["duration"].startswith("about 13 min")
    assert listed["digits-hardening"]["purpose"].startswith(
        "What does each kind of adversarial training cost"
    )
    assert "stresslens init --study NAME" in type_("list", "studies")[1]


def test_an_unknown_kind(type_: Type) -> None:
    code, _, err = type_("list", "studeis")
    assert code == 2
    assert "did you mean 'studies'?" in err
