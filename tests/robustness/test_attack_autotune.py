"""A search sees the same function as the judge, however it is steered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stresslens.core.attack_base import attacked, batched_mean_logits
from stresslens.robustness import autotune
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


def test_a_model_that_cannot_be_narrow_is_steered_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.net(x.flatten(1) + torch.zeros(64))
            return out

    monkeypatch.setattr(autotune, "PROBE_SECONDS", 0.001)
    net = Stubborn()
    with attacked(net):
        found = autotune_attack(net, X, passes=1)
    assert found.precision == "float32"
    assert found.seconds > 0
    assert found.batch <= len(X)
