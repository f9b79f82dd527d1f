"""Optimizers of timm and torch by their names there, against the libraries' own."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_steps import goes_on_identically, network, ours, take
from timm import optim as timm_optim
from torch import nn

from stresslens.config import registry
from stresslens.config.schema import Train
from stresslens.config.study_file import read_study
from stresslens.core.errors import ConfigError
from stresslens.training.optimization import build_optimizer

TIMM = (
    "lion",
    "lamb",
    "adamp",
    "nadamw",
    "adan",
    "lars",
    "muon",
    "sgdw",
    "adopt",
    "madgrad",
    "novograd",
    "adafactorbv",
)
"""Some of each family of timm's; `test_every_optimizer_of_timm` has them all."""


def timms(net: nn.Module, name: str, **options: Any) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = timm_optim.create_optimizer_v2(net, opt=name, lr=0.01, **options)
    return made


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_an_optimizer_of_timm_is_timms(name: str, weight_decay: float) -> None:
    """On the whole net timm finds itself which parameters are not decayed."""
    net, reference = network(), network()
    found = take(net, ours("timm", net, lr=0.01, name=name, weight_decay=weight_decay), range(6))
    expected = take(reference, timms(reference, name, weight_decay=weight_decay), range(6))
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-7) for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in timm_optim.list_optimizers() if not name.startswith("kron")]
)
def test_every_optimizer_of_timm(name: str) -> None:
    """It trains, and goes on from a file identically, or is refused in words. kron is compiled, which takes
    minutes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that would make it faster
            ours("timm", network(), name=name)
            goes_on_identically("timm", name=name)
    except ConfigError as error:
        assert name.startswith(("bnb", "fused")) or name == "adahessian", error  # noqa: PT017


@pytest.mark.parametrize("named", ["3.weight", "3.*"])
def test_timms_rule_spares_biases_norms_and_what_the_net_names(named: str) -> None:
    """Beside layer-wise learning rates, which stay. The net may name patterns, as timm's XCiT does."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    net.no_weight_decay = lambda: {named}  # type: ignore[assignment]
    groups = [
        {"params": list(net[0].parameters()), "lr": 0.1},
        {"params": list(net[1:].parameters()), "lr": 1.0},
    ]
    value = {"timm": {"name": "lion", "weight_decay": 0.3}}
    made = registry.resolve("optimizers", value)(parameters=groups, lr=1.0, net=net)
    decay_of = {id(p): (g["weight_decay"], g["lr"]) for g in made.param_groups for p in g["params"]}
    found = {name: decay_of[id(p)] for name, p in net.named_parameters()}
    assert found == {
        "0.weight": (0.3, 0.1),
        "0.bias": (0.0, 0.1),
        "1.weight": (0.0, 1.0),
        "1.bias": (0.0, 1.0),
        "3.weight": (0.0, 1.0),
        "3.bias": (0.0, 1.0),
    }
    every = registry.resolve("optimizers", {"timm": {**value["timm"], "decay": "all"}})
    assert {g["weight_decay"] for g in every(parameters=groups, lr=1.0, net=net).param_groups} == {0.3}


@pytest.mark.parametrize(
    "name", ["NAdam", "RAdam", "Adagrad", "Adadelta", "Adamax", "ASGD", "Adafactor", "Rprop"]
)
def test_an_optimizer_of_torch_is_torchs(name: str) -> None:
    net, reference = network(), network()
    found = take(net, ours("torch", net, lr=0.01, name=name), range(6))
    expected = take(reference, getattr(torch.optim, name)(reference.parameters(), lr=0.01), range(6))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_options_reach_the_library() -> None:
    net = network()
    lion = ours("timm", net, name="lion", options={"betas": [0.5, 0.7]})
    assert all(group["betas"] == (0.5, 0.7) for group in lion.param_groups)
    nadam = ours("torch", net, name="NAdam", weight_decay=0.2, decay="weights", options={"eps": 1e-3})
    assert [(g["weight_decay"], g["eps"]) for g in nadam.param_groups] == [(0.0, 1e-3), (0.2, 1e-3)]
    assert ours("torch", net, name="AdamW").param_groups[0]["weight_decay"] == 0.01  # torch's own


@pytest.mark.parametrize(
    ("plugin", "options", "says"),
    [
        ("timm", {"name": "lyon"}, "timm has no optimizer called 'lyon'; did you mean 'lion'"),
        ("torch", {"name": "Nadam"}, "did you mean 'NAdam'"),
        ("timm", {"name": "adahessian"}, "second derivatives"),
        ("timm", {"name": "fusedadam"}, "CUDA required"),
        ("timm", {"name": "lion", "options": {"betta": 1}}, r"no option 'betta'; did you mean 'betas'\?"),
        (
            "timm",
            {"name": "lion", "options": {"betas": 0.9}},
            "timm's optimizer lion cannot be used here with betas=0.9: ",
        ),
        ("timm", {"name": "lion", "options": {"weight_decay": 1}}, "give it beside them"),
        ("torch", {"name": "LBFGS"}, "LBFGS computes the loss several times in a step"),
        ("torch", {"name": "SparseAdam"}, "takes sparse gradients only"),
        ("torch", {"name": "Muon"}, "Muon only supports 2D parameters"),
        ("torch", {"name": "Rprop", "weight_decay": 0.1}, "Rprop has no weight decay"),
        ("torch", {"name": "Adam", "options": {"betas": [2, 0.9]}}, "Invalid beta parameter"),
        (
            "torch",
            {"name": "Adam", "options": {"eps": "small"}},
            "torch's optimizer Adam cannot be used here",
        ),
    ],
)
def test_what_a_library_refuses_is_told_in_words(plugin: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ours(plugin, network(), **options)


@pytest.mark.parametrize("plugin", ["torch", "timm"])
def test_a_study_with_a_misspelt_option_is_refused_when_it_is_read(plugin: str, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    named = {"name": "nadamw" if plugin == "timm" else "NAdam", "options": {"betas": [0.9, 0.99]}}
    study.write_text(json.dumps({"data": "digits", "train": {"optimizer": {plugin: named}}}))
    read_study(study, [])
    study.write_text(study.read_text().replace("betas", "betaz"))
    with pytest.raises(ConfigError, match=r"train.optimizer: .* has no option 'betaz'; did you mean 'betas'"):
        read_study(study, [])


def test_a_closure_is_refused_of_a_class_too() -> None:
    net = nn.Sequential(OrderedDict(net=network()))
    with pytest.raises(ConfigError, match="computes the loss several times in a step"):
        build_optimizer(Train(optimizer="torch.optim:LBFGS"), list(net.parameters()), net, Path())
