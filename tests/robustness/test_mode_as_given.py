"""The mode in which a module is given to `sl.attack` is told truly, also where the result is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stresslens as sl


class WithFeatures(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), x


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(144, 3)]
    return nn.Sequential(*layers)


def told(model: nn.Module, **options: Any) -> tuple[str, str]:
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    asked: dict[str, Any] = {"radii": 0.05, "protocol": ["fgsm"], **options}
    modes = {module: module.training for module in model.modules()}
    found = sl.attack(model, x, torch.arange(16) % 3, **asked)
    assert {module: module.training for module in model.modules()} == modes
    (finding,) = [each for each in found.findings if each.audit == "evaluation mode"]
    return finding.status, finding.evidence


KINDS: dict[str, Any] = {
    "plain": (lambda: net(), {}),
    "bpda": (lambda: net(), {"bpda": ["2"]}),
    "features too": (lambda: WithFeatures(net()), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_it_is_told_by_the_public_function(name: str) -> None:
    make, options = KINDS[name]
    status, evidence = told(make().train(), **options)
    assert status == "sign"
    assert "were given in training mode" in evidence
    status, evidence = told(make().eval(), **options)
    assert status == "no sign"
    assert evidence.startswith("the model was given in evaluation mode")


def test_a_single_part_in_training_mode_is_told() -> None:
    model = net().eval()
    model[4].train()  # type: ignore[index]
    status, evidence = told(model)
    assert status == "sign"
    assert evidence.startswith("1 of 7 parts were given in training mode")


@pytest.mark.slow
def test_a_kept_result_tells_the_mode_of_this_call(tmp_path: Path) -> None:
    model = net()
    for training in (True, False, True):
        status, evidence = told(model.train(training), out=tmp_path)
        assert (status == "sign") is training, evidence
