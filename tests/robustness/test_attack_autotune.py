"""A search sees the same function as the judge, however it is steered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from stresslens.core import compute_choice
from stresslens.core.attack_base import attacked, batched_mean_logits
from stresslens.robustness.autotune import AttackCompute, autotune_attack


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(64, 3)),
    )


X = torch.rand(20, 1, 8, 8)


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_function_is_the_same(precision: str, memory_format: str) -> None:
    net = model()
    seen = AttackCompute(precision, memory_format, 1, 8, 1, 0.0).model(net, X)  # type: ignore[arg-type]
    assert torch.allclose(batched_mean_logits(seen, X), net(X), atol=1e-6 if precision == "float32" else 0.05)
    assert isinstance(net[1], nn.ReLU)  # what is steered is a copy
    assert next(net.parameters()).dtype == torch.float32


class Stubborn(nn.Module):
    """It adds float32 zeros to its input, which a layer in bfloat16 does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x.flatten(1) + torch.zeros(64))
        return out


class Viewing(nn.Module):
    """It cannot be computed in channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.conv(x).relu().view(len(x), -1))
        return out


@pytest.fixture
def _bfloat16_always_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which bfloat16 is tried for any model, and computes in no time."""

    def gains(usual: Any, other: Any, clock: Any) -> list[float]:
        return [3.0] * compute_choice.PAIRS

    monkeypatch.setattr("stresslens.robustness.autotune.bfloat16_in_hardware", lambda device: True)
    monkeypatch.setattr(compute_choice, "MEASURED_FROM", 0.0)
    monkeypatch.setattr(compute_choice, "gains_in_pairs", gains)


@pytest.mark.usefixtures("_bfloat16_always_wins")
def test_only_what_computes_the_same_is_chosen() -> None:
    for net, precision, memory_format in (
        (Stubborn(), "float32", "contiguous"),
        (Viewing(), "bfloat16", "contiguous"),
        (model(), "bfloat16", "contiguous"),
    ):
        with attacked(net):
            found = autotune_attack(net, X, passes=1)
        assert (found.precision, found.memory_format) == (precision, memory_format)
        assert found.batch == len(X)


def test_a_small_model_is_attacked_as_the_rules_say() -> None:
    with attacked(net := model()):
        found = [autotune_attack(net, X, passes=passes) for passes in (1, 20)]
    assert [each.memory_format for each in found] == ["channels_last", "channels_last"]
    assert [each.precision for each in found] == ["float32", "float32"]
    assert found[1].seconds == pytest.approx(20 * found[0].seconds)
    # 16 · 4 outputs · 9 weights of the convolution, 64 · 3 of the linear layer
    multiply_adds = 8 * 8 * 4 * 9 + 64 * 3
    assert found[0].seconds == pytest.approx(4 * multiply_adds / 5e10)
    assert AttackCompute() == replace(found[0], batch=128, seconds=0.0, memory_format="contiguous")


def test_a_module_that_cannot_be_looked_into_is_attacked() -> None:
    class Strange(nn.Module):
        def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
            raise TypeError("no copies")

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(64, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 1:
                raise RuntimeError("not alone")
            return x.flatten(1) @ self.weight

    with attacked(net := Strange()):
        found = autotune_attack(net, X, passes=1)
    assert (found.precision, found.memory_format) == ("float32", "contiguous")
    assert found.seconds == pytest.approx(4 * 192 / 5e10)
