"""A random part of each image, resized as torchvision does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.augmentations.crop import crop
from stresslens.plugins.augmentations.random_resized_crop import (
    _resampled,
    _resized,
    random_resized_crop,
)


def positions(n: int, height: int, width: int) -> Tensor:
    """Images (n, 2, H, W) in float64 whose channels say where a pixel is: its row and its column."""
    down, right = torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5
    grid = torch.stack(torch.meshgrid(down / height, right / width, indexing="ij"))
    return grid.expand(n, 2, height, width)


@pytest.mark.parametrize("size", [(24, 20), (7, 50), (1, 1), (33, 21)], ids=str)
def test_a_given_part_is_resized_as_by_torchvision(size: tuple[int, int]) -> None:
    vision = torchvision()
    from torchvision.transforms import v2

    assert vision
    n, height, width = 60, 33, 21
    draws = Draws(0, torch.arange(n))
    h, w = 1 + draws.integers(height), 1 + draws.integers(width)
    top, left = (draws.uniform() * (height - h + 1)).long(), (draws.uniform() * (width - w + 1)).long()
    x = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)).double()
    as_on_a_gpu = _resampled(_resampled(x, top, h, size[0], 2), left, w, size[1], 3)
    found = _resized(x, (top, left, h, w), size)
    for i in range(n):
        box = (int(top[i]), int(left[i]), int(h[i]), int(w[i]))
        expected = v2.functional.resized_crop(x[i], *box, list(size), antialias=True)
        assert torch.equal(found[i], expected)
        assert torch.allclose(as_on_a_gpu[i], expected, atol=1e-7)


def shown(n: int = 4000, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of the parts, as shares of the sides, from their corner pixels."""
    x = positions(n, 64, 48)
    new, _ = random_resized_crop(x, torch.zeros(n), Draws(2, torch.arange(n)), size=(64, 48), **options)
    height = (new[:, 0, 40, 0] - new[:, 0, 20, 0]) * 64 / 20
    width = (new[:, 1, 0, 30] - new[:, 1, 0, 10]) * 48 / 20
    top = new[:, 0, 30, 0] - height * 30.5 / 64
    left = new[:, 1, 0, 20] - width * 20.5 / 48
    return top, left, height, width


def test_parts_lie_inside_and_have_the_area_and_ratio_asked_for() -> None:
    top, left, height, width = shown(scale=(0.2, 0.5), ratio=(0.8, 1.25))
    assert min(float(top.min()), float(left.min())) > -1e-6
    assert max(float((top + height).max()), float((left + width).max())) < 1 + 1e-6
    area, ratio = height * width, (width * 48) / (height * 64)
    assert 0.18 < area.min() < 0.22
    assert 0.48 < area.max() < 0.52  # sides are rounded
    assert abs(area.mean() - 0.35) < 0.005
    assert 0.76 < ratio.min() < 0.84
    assert abs(ratio.log().mean()) < 0.01
    free = 1 - height
    assert abs((top / free)[free > 0.1].mean() - 0.5) < 0.02


def test_without_a_part_that_fits_it_is_the_middle() -> None:
    """A part of the whole area with three times the width cannot be inside 64 × 48: the largest with
    this ratio is 16 × 48."""
    top, left, height, width = shown(n=5, scale=(1.0, 1.0), ratio=(3.0, 3.0))
    assert torch.allclose(height, torch.tensor(16 / 64).double())
    assert torch.allclose(top, torch.tensor(24 / 64).double())
    assert torch.allclose(width, torch.tensor(1.0).double())
    assert torch.allclose(left, torch.tensor(0.0).double(), atol=1e-9)


def test_an_image_that_is_not_cropped_is_resized_as_a_whole() -> None:
    x = positions(10, 12, 8)
    new, _ = random_resized_crop(x, torch.zeros(10), Draws(0, torch.arange(10)), size=4, chance=0.0)
    assert new.shape == (10, 2, 4, 4)
    expected = torch.nn.functional.interpolate(x, (4, 4), mode="bilinear", antialias=True)
    assert torch.allclose(new, expected)


def test_a_part_is_the_same_whatever_stands_beside_it() -> None:
    x, y = torch.rand(50, 3, 32, 32), torch.zeros(50)
    whole = random_resized_crop(x, y, Draws(0, torch.arange(50)), size=24)[0]
    rows = torch.tensor([41, 3])
    assert torch.equal(random_resized_crop(x[rows], y[rows], Draws(0, rows), size=24)[0], whole[rows])


def test_crop_of_a_smaller_size() -> None:
    x = positions(500, 12, 9)
    new, _ = crop(x, torch.zeros(500), Draws(0, torch.arange(500)), padding=0, size=(8, 9))
    assert new.shape == (500, 2, 8, 9)
    starts = {round(float(row) * 12 - 0.5) for row in new[:, 0, 0, 0]}
    assert starts == {0, 1, 2, 3, 4}
    middle, _ = crop(x, torch.zeros(500), Draws(0, torch.arange(500)), padding=0, size=(8, 9), chance=0.0)
    assert torch.equal(middle, x[:, :, 2:10])
    with pytest.raises(ConfigError, match="larger than images of 12×9"):
        crop(x, torch.zeros(500), Draws(0, torch.arange(500)), padding=0, size=24)
