"""Pretrained weights changed to the channels and the size of the images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.pretrained import load_into


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7])
def test_a_stem_for_other_channels_answers_grey_images_about_as_before(channels: int) -> None:
    net, source = nn.Conv2d(channels, 4, 3, bias=False), nn.Conv2d(3, 4, 3, bias=False)
    with torch.no_grad():
        source.weight.copy_(source.weight.mean(1, keepdim=True).expand_as(source.weight))
    made, given = nn.Sequential(net), nn.Sequential(source)
    report = load_into(made, given.state_dict(), "it", head=(), keep_head=True)
    grey = torch.rand(2, 1, 6, 6)
    assert torch.allclose(
        net(grey.expand(-1, channels, -1, -1)), source(grey.expand(-1, 3, -1, -1)), atol=1e-5
    )
    assert "channel" in report.said


def test_channels_are_repeated_in_turn_as_in_timm() -> None:
    timm = pytest.importorskip("timm.models")
    net, source = nn.Sequential(nn.Conv2d(4, 2, 3)), nn.Sequential(nn.Conv2d(3, 2, 3))
    load_into(net, source.state_dict(), "it", head=(), keep_head=True)
    assert torch.allclose(net[0].weight, timm.adapt_input_conv(4, source[0].weight.detach()))


class Patches(nn.Module):
    """Patches of 2×2 with a class token and an embedding of their positions."""

    position: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 2, stride=2)
        rows = (torch.arange(height // 2) + 0.5)[:, None].expand(-1, width // 2) / (height // 2)
        columns = (torch.arange(width // 2) + 0.5).expand(height // 2, -1) / (width // 2)
        grid = torch.stack([rows, columns], -1).flatten(0, 1)
        self.position = nn.Parameter(torch.cat([torch.full((1, 2), 9.0), grid])[None])


@pytest.mark.parametrize("size", [(16, 16), (8, 16), (16, 4), (4, 64)], ids=str)
def test_positions_are_resampled_to_a_rectangle(size: tuple[int, int]) -> None:
    net, source = Patches(*size), Patches(16, 16)
    expected = net.position.detach().clone()
    options = {"shape": (1, *size), "made_for": (1, 16, 16)}
    load_into(net, source.state_dict(), "it", head=(), keep_head=True, **options)
    assert torch.equal(net.position[0, 0], torch.full((2,), 9.0))
    assert float((net.position - expected).abs().amax().detach()) < 0.07  # bicubic, at the border
    assert float((net.position - expected).abs().mean().detach()) < 0.03


def test_a_grid_that_is_not_known_is_refused_with_the_size() -> None:
    net, source = Patches(8, 12), Patches(16, 16)
    net.position = nn.Parameter(net.position.detach()[:, :-1])
    says = r"first position: .*images of 16×16, and these have 8×12: set input.size to \[16, 16\]"
    with pytest.raises(ConfigError, match=says):
        load_into(
            net, source.state_dict(), "it", head=(), keep_head=True, shape=(1, 8, 12), made_for=(1, 16, 16)
        )
