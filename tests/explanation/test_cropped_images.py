"""Maps of a net that sees the middle of an image lie on that part."""

from __future__ import annotations

import math
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.center_crop import CenterCrop, enlarged, seen_part
from stresslens.core.layers import Normalize, Resize, with_input_layers
from stresslens.plugins.explainers.gradcam import gradcam
from stresslens.plugins.explainers.rollout import rollout
from stresslens.plugins.models.vit import vit


class Brightest(nn.Module):
    """The first logit is the sum of the image, the second 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        total = self.conv(x).sum((1, 2, 3))
        return torch.stack([total, 0 * total], 1)


def behind_crop(net: nn.Module, size: tuple[int, int], of: tuple[int, int]) -> nn.Sequential:
    return with_input_layers(net, Normalize.by_moments([0.0], [1.0]), None, "bilinear", CenterCrop(size, of))


def test_a_bright_pixel_is_where_it_is_in_the_image() -> None:
    model = behind_crop(Brightest(), (6, 4), (10, 12)).eval()
    x = torch.zeros(1, 1, 10, 12)
    x[0, 0, 3, 5] = 1  # inside
    x[0, 0, 0, 0] = 1  # outside of what the net sees
    values = torch.as_tensor(gradcam(model, x, torch.tensor([0])).values)
    expected = torch.zeros(10, 12)
    expected[3, 5] = 1
    assert torch.allclose(values[0] / values.max(), expected, atol=1e-6)


def test_rollout_reads_only_what_is_seen() -> None:
    torch.manual_seed(0)
    net = vit((1, 8, 8), 3, patch=2, width=16, depth=2, heads=2)
    model = behind_crop(net, (8, 8), (12, 16)).eval()
    maps = torch.as_tensor(rollout(model, torch.rand(2, 1, 12, 16)).values)
    inside = torch.zeros(12, 16, dtype=torch.bool)
    inside[2:10, 4:12] = True
    assert maps[:, ~inside].abs().max() == 0
    assert maps[:, inside].min() > 0


@pytest.mark.parametrize(
    ("resized", "crop", "expected"),
    [
        (None, (4, 6), (slice(2, 6), slice(3, 9))),
        ((16, 24), (8, 12), (slice(2, 6), slice(3, 9))),
        (None, None, (slice(0, 8), slice(0, 12))),
    ],
    ids=str,
)
def test_the_part_in_pixels_of_the_image(
    resized: tuple[int, int] | None, crop: tuple[int, int] | None, expected: tuple[slice, slice]
) -> None:
    parts: list[tuple[str, nn.Module]] = [("resize", Resize(resized))] if resized else []
    parts += [("crop", CenterCrop(crop, resized or (8, 12)))] if crop else []
    part = seen_part(nn.Sequential(OrderedDict([*parts, ("net", nn.Identity())])), (8, 12))
    assert part == expected
    assert enlarged(torch.ones(1, 1, 2, 2), part, (8, 12)).sum() == math.prod(part.sides)
