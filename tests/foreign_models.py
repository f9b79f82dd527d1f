"""A small net and its images, and how a model of other software is built for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.evaluation.saved_model import net_from

SHAPE = (3, 6, 5)
NAMES = ("a", "b", "c", "d")


def small_net(outputs: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(120, outputs))
    return net.eval()


def images(n: int = 7) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(2))


def built(value: dict[str, Any], shape: tuple[int, int, int] = SHAPE, names: Any = NAMES) -> nn.Module:
    return net_from(value, shape, names, None, Path.cwd())


def prepared(value: dict[str, Any], x: Tensor) -> Tensor:
    """What the model's input layers make of images in [0, 1]."""
    wanted = registry.resolve("models", value).answer_beside("own_preprocessing", shape=tuple(x.shape[1:]))
    return wanted.normalize(x)
