"""Lab E's plain net: counted by hand, and started so that its signal stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stresslens.core.layer_table import layer_table
from stresslens.plugins.models.simple_net import simple_net

PHOTOGRAPH = (3, 128, 128)


@pytest.mark.parametrize(("batch_norm", "parameters"), [(False, 414_116), (True, 414_564)])
@pytest.mark.parametrize("conv", ["library", "unfold"])
def test_its_layers_by_hand(conv: Any, batch_norm: bool, parameters: int) -> None:
    counted = (
        (3 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (64 * 9 + 1) * 128 + (128 * 9 + 1) * 256 + (256 + 1) * 100
    )
    table = layer_table(simple_net(PHOTOGRAPH, 100, conv=conv, batch_norm=batch_norm), PHOTOGRAPH)
    assert table.parameters == counted + batch_norm * 2 * (32 + 64 + 128) == parameters
    assert table.by_kind()["conv"]["neurons"] == 32 * 128**2 + 64 * 64**2 + 128 * 32**2 + 256 * 16**2
    kinds = [layer.kind for layer in table.layers if layer.kind in ("conv", "norm")]
    assert kinds == (["conv", "norm"] * 3 + ["conv"] if batch_norm else ["conv"] * 4)


def test_images_of_any_size_from_8_pixels_on() -> None:
    for shape in ((1, 8, 8), (5, 9, 31), (3, 32, 32)):
        assert simple_net(shape, 7, channels=4)(torch.rand(2, *shape)).shape == (2, 7)
    with pytest.raises(ValueError, match="at least 8×8 pixels; got 7×40"):
        simple_net((3, 7, 40), 7)


def test_the_signal_neither_fades_nor_grows() -> None:
    """He et al. (2015): behind the ReLU half is left of twice the mean square, but for what the
    border of zeros takes."""
    torch.manual_seed(0)
    net = simple_net((3, 32, 32), 10, channels=64)
    for place in (0, 3, 6, 9):
        with torch.no_grad():
            found = net[place](torch.randn(16, net[place].in_channels, 24, 24)).relu().square().mean()
        assert float(found) == pytest.approx((1 - 2 / (3 * 24)) ** 2, abs=0.1)
