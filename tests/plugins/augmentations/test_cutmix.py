"""A box of the partner's pixels, and labels that count them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.plugins.augmentations._partners import beta
from stresslens.plugins.augmentations.cutmix import cutmix


def mixed(n: int, height: int, width: int, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Images and labels that say who they are: image i is i everywhere, in three channels, and has
    class i."""
    x = torch.arange(n, dtype=torch.float64)[:, None, None, None].expand(n, 3, height, width) / n
    return cutmix(x, torch.arange(n), Draws(0, torch.arange(n)), n, alpha=alpha)


@pytest.mark.parametrize("size", [(8, 12), (5, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_labels_are_the_exact_shares_of_pixels(alpha: float, size: tuple[int, int]) -> None:
    n = 120
    x, target = mixed(n, *size, alpha=alpha)
    assert torch.equal(x, x[:, :1].expand_as(x))  # in every channel alike
    whose = (x[:, 0] * n).round().long().flatten(1)  # (N, H·W)
    counted = F.one_hot(whose, n).double().mean(1)
    assert torch.allclose(target, counted, atol=1e-12)
    assert torch.allclose(target.sum(1), torch.ones(n, dtype=torch.float64))


def test_what_is_filled_is_one_box_of_one_partner() -> None:
    n = 300
    x, target = mixed(n, 10, 14)
    foreign = (x[:, 0] * n).round().long() != torch.arange(n)[:, None, None]
    rows, columns = foreign.any(2), foreign.any(1)
    assert torch.equal(foreign, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # without a gap
        assert (line.long().diff(dim=1) == 1).sum(1).max() <= 1
    others = target.clone().fill_diagonal_(0) > 0
    assert (others.sum(0) <= 1).all()
    assert (others.sum(1) <= 1).all()
    assert foreign.any(0).all()  # every pixel is hit by some


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_box_has_the_images_proportions_and_its_area_is_beta(alpha: float) -> None:
    n, height, width = 2000, 20, 30
    x, _ = mixed(n, height, width, alpha)
    foreign = (x[:, 0] * n).round().long() != torch.arange(n)[:, None, None]
    drawn = beta(Draws(0, torch.arange(n)), alpha, x)
    assert stats.kstest(drawn.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    for length, line in ((height, foreign.any(2)), (width, foreign.any(1))):
        asked = ((1 - drawn).sqrt() * length).long()
        visible = asked * foreign.any(2).any(1)  # a box without rows has no columns to be seen
        inside = ~line[:, 0] & ~line[:, -1]
        assert torch.equal(line.sum(1)[inside], visible[inside])
        assert (line.sum(1) <= asked).all()
        assert inside.sum() > n / 10


def test_soft_labels_are_mixed_alike() -> None:
    x, y = torch.rand(20, 1, 9, 9), torch.arange(20) % 4
    hard = cutmix(x, y, Draws(0, torch.arange(20)), 4)
    soft = cutmix(x, F.one_hot(y, 4).float(), Draws(0, torch.arange(20)), 4)
    assert torch.equal(hard[0], soft[0])
    assert torch.equal(hard[1], soft[1])
