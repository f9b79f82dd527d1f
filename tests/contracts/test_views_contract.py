"""Every view on every model it is about: pictures, points and lines that can be drawn, and nothing
left behind."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from small_models import BUILT, model_of
from torch import nn

from stresslens.config import registry
from stresslens.core.attack_base import attacked
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Lines, Panel, Points
from stresslens.explanation.svg import svg

CHEAP: dict[str, dict[str, Any]] = {"class_image": {"steps": 3}, "impostor": {"steps": 3}}
CLASSES = ["ant", "bee", "cat", "<dog>"]
REFUSED = {
    "filters": ("linear", "mlp"),
    "activations": (),
}
every = pytest.mark.parametrize("name", registry.names("views"))


def seen(name: str, model: nn.Module, shape: tuple[int, int, int], **options: Any) -> Panel:
    draws = torch.Generator().manual_seed(1)
    x, y = torch.rand(24, *shape, generator=draws), torch.arange(24) % 4
    split = Split((x * 255).byte(), y)
    bound = registry.resolve("views", {name: CHEAP.get(name, {}) | options})
    changed = (x[:6] + 0.1 * torch.rand(6, *shape, generator=draws)).clamp(0, 1)
    with attacked(model):
        panel: Panel = bound(
            model=model,
            x=x[:5],
            y=y[:5],
            train=split,
            split=split,
            classes=CLASSES,
            adversarials=(x[:6], changed, y[:6]),
        )
    return panel


@pytest.mark.breadth
@every
@pytest.mark.parametrize("model", BUILT)
@pytest.mark.parametrize("shape", [(1, 12, 16), (3, 16, 16), (5, 16, 12)], ids=str)
def test_what_it_returns_can_be_drawn(name: str, model: str, shape: tuple[int, int, int]) -> None:
    net = model_of(model, shape)
    if model in REFUSED.get(name, ()):
        with pytest.raises(ConfigError, match=r"no convolution|laid out"):
            seen(name, net, shape)
        return
    state = {key: value.clone() for key, value in net.state_dict().items()}
    panel = seen(name, net.train(), shape)
    assert panel.parts
    json.dumps(dict(panel.facts), allow_nan=False)
    for part in panel.parts:
        if isinstance(part, Grid):
            drawn = svg(part, "unit")
            assert drawn.count("<image") == sum(cell is not None for row in part.rows for cell in row) + (
                part.scale is not None
            )
            assert "<dog>" not in drawn
            assert all(cell.pixels.dtype == np.uint8 for row in part.rows for cell in row if cell)
        elif isinstance(part, Points):
            assert part.places.shape == (len(part.groups), 2) == (len(part.wrong), 2)
            assert np.isfinite(part.places).all()
        else:
            assert isinstance(part, Lines)
            assert all(np.isfinite(np.array(line)).all() for line in part.lines.values())
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


@every
def test_the_same_twice(name: str) -> None:
    net = model_of("simple_cnn", (1, 12, 16))
    one, other = (seen(name, net, (1, 12, 16)) for _ in range(2))
    assert [part.title for part in one.parts] == [part.title for part in other.parts]
    for a, b in zip(one.parts, other.parts):
        if isinstance(a, Grid) and isinstance(b, Grid):
            cells = [[cell for row in part.rows for cell in row if cell] for part in (a, b)]
            assert all(np.array_equal(c.pixels, d.pixels) and c.caption == d.caption for c, d in zip(*cells))
    assert one.facts == other.facts
