"""The audit regions win: a maximum of planes of unequal gain, and sound networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.ball import Norm
from stresslens.core.types import Finding
from stresslens.robustness.audit import ExtraAttackProbe, audit

GRADIENTS = ("fgsm", {"pgd": {"steps": 10}}, {"apgd": {"steps": 20}})


class Highest(nn.Module):
    """Class 1 where the highest of six planes is above 0."""

    def __init__(self, gains: list[float]) -> None:
        super().__init__()
        normal = torch.randn(6, 36, generator=torch.Generator().manual_seed(5))
        self.weight, self.bias = (
            normal * torch.tensor(gains)[:, None],
            -(normal.sum(1) / 2 + 2) * torch.tensor(gains),
        )

    def forward(self, x: Tensor) -> Tensor:
        highest = (x.flatten(1) @ self.weight.T + self.bias).amax(1)
        return torch.stack([torch.zeros_like(highest), highest], 1)


def found(model: nn.Module, norm: Norm, radius: float, protocol: tuple[Any, ...]) -> Finding:
    x = 0.25 + 0.5 * torch.rand(80, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    probe = ExtraAttackProbe(model, x, y, norm, (radius,), protocol)
    (finding,) = audit(probe=probe, only=["regions_win"])
    return finding


@pytest.mark.breadth(1)
@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.05), ("l2", 0.25), ("l1", 0.8)])
@pytest.mark.parametrize("protocol", [GRADIENTS, (*GRADIENTS, "linear_regions")], ids=["own", "with it"])
def test_planes_of_unequal_gain_are_serious(norm: Norm, radius: float, protocol: tuple[Any, ...]) -> None:
    finding = found(Highest([1.0, 3.0, 9.0, 27.0, 81.0, 243.0]), norm, radius, protocol)
    assert (finding.audit, finding.status, finding.severity) == ("regions win", "sign", "serious")
    assert finding.items


@pytest.mark.breadth(1)
@pytest.mark.parametrize(("norm", "radius"), [("linf", 0.05), ("l2", 0.25), ("l1", 0.8)])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_network_is_not_serious(norm: Norm, radius: float, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 4)).eval()
    assert found(net, norm, radius, GRADIENTS).severity != "serious"


def test_a_protocol_without_gradients_is_not_checked() -> None:
    assert found(Highest([1.0] * 6), "linf", 0.05, ({"square": {"queries": 20}},)).status == "not checked"
