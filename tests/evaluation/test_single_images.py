"""Nets that answer a single image otherwise than several."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.layer_table import layer_table

X = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)
Y = np.arange(9) % 2


class Squeezing(nn.Module):
    """Logits (N, 2), but (2,) for one image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).squeeze()  # type: ignore[no-any-return]


def test_a_net_that_squeezes_a_single_image_is_attacked_and_explained() -> None:
    torch.manual_seed(0)
    net = Squeezing()
    plain = nn.Sequential(net.conv, nn.Flatten())
    options = {"radii": [0.1], "protocol": ["pgd", "deepfool"], "audit": False}
    results = [sl.attack(each, X, Y, **options) for each in (net, plain)]
    assert torch.equal(*(torch.as_tensor(each.minimal_radius) for each in results))
    maps = [sl.explain(each, X, "saliency", check=False).maps for each in (net, plain)]
    assert torch.equal(*map(torch.as_tensor, maps))


def test_the_layer_table_of_a_net_that_cannot_take_one_image() -> None:
    layers = [nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(4, 2)]
    alone = nn.Sequential(*layers)
    without = nn.Sequential(layers[0], *layers[2:])
    table, expected = layer_table(alone, (1, 8, 8)), layer_table(without, (1, 8, 8))
    assert table.multiply_adds == expected.multiply_adds
    assert [layer.output for layer in table.layers if layer.kind in ("conv", "linear")] == [(4, 1, 1), (2,)]
    with pytest.raises(sl.StresslensError, match=r"cannot take images of shape \(1, 4, 4\)"):
        layer_table(alone, (1, 4, 4))
