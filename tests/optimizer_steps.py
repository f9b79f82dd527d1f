"""Steps of an optimizer on a small net, for its tests."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from stresslens.config import registry

LIBRARIES: dict[str, dict[str, Any]] = {"timm": {"name": "lion"}, "torch": {"name": "NAdam"}}
"""Options that an optimizer needs, by its plug-in."""


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def take(net: nn.Sequential, optimizer: torch.optim.Optimizer, steps: range) -> list[torch.Tensor]:
    dtype = next(net.parameters()).dtype
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = (
            torch.randn(16, 6, generator=generator, dtype=dtype),
            torch.randint(3, (16,), generator=generator),
        )
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def ours(plugin: str, net: nn.Module, lr: float = 0.05, **options: Any) -> torch.optim.Optimizer:
    value = {plugin: {**LIBRARIES.get(plugin, {}), **options}}
    made: torch.optim.Optimizer = registry.resolve("optimizers", value)(
        parameters=list(net.parameters()), lr=lr, net=net
    )
    return made


def goes_on_identically(plugin: str, **options: Any) -> None:
    """Through a file that is read without executing anything, as checkpoints are."""
    net = network()
    optimizer = ours(plugin, net, weight_decay=0.01, **options)
    take(net, optimizer, range(7))
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    uninterrupted = take(net, optimizer, range(7, 14))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = network()
    resumed = ours(plugin, other, lr=123.0, weight_decay=0.01, **options)  # the saved learning rate counts
    other.load_state_dict(saved["net"])
    resumed.load_state_dict(saved["optimizer"])
    assert all(
        torch.equal(a, b) for a, b in zip(uninterrupted, take(other, resumed, range(7, 14)), strict=True)
    )
