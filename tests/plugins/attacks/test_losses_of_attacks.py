"""The losses that attacks raise, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.plugins.attacks._losses import (
    dlr,
    dlr_targeted,
    dlr_towards,
    log_odds,
    margin_targeted,
    margin_towards,
)


def of(*logits: float) -> Tensor:
    return torch.tensor([logits], dtype=torch.float64)


def one(value: int) -> Tensor:
    return torch.tensor([value])


def test_dlr_by_hand() -> None:
    """The difference to the best other class over that between first and third."""
    assert float(dlr(of(3, 2, 5, 1), one(0))) == pytest.approx(2 / 3)
    assert float(dlr(of(1, 4, 2, 0), one(1))) == pytest.approx(-2 / 3)
    assert float(dlr_targeted(of(3, 2, 5, 1), one(2), one(0))) == pytest.approx(-2 / (5 - 1.5))
    assert float(dlr_towards(of(3, 2, 5, 1), one(2), one(0))) == pytest.approx(-2 / (5 - 1.5))


def test_margins_by_hand() -> None:
    assert float(margin_targeted(of(3, 2, 5), one(0), one(1))) == -1
    assert float(margin_towards(of(3, 2, 5), one(0), one(1))) == -3


@pytest.mark.parametrize(
    "loss", [dlr, lambda z, y: dlr_targeted(z, y, one(3)), lambda z, y: dlr_towards(z, y, one(3))]
)
def test_ratios_do_not_depend_on_scale_or_shift(loss: object) -> None:
    assert callable(loss)
    logits = of(3, 2, 5, 1)
    assert torch.allclose(loss(logits, one(2)), loss(1000 * logits - 50, one(2)))


def test_dlr_has_no_slope_where_the_label_ranks_third() -> None:
    logits = of(5, 4, 3, 1).requires_grad_()
    dlr(logits, one(2)).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-10


def test_log_odds_point_where_cross_entropy_does() -> None:
    logits = torch.randn(
        20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    y = torch.arange(20) % 5
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), logits)
    (odds,) = torch.autograd.grad(log_odds(logits, y).sum(), logits)
    assert torch.allclose(F.normalize(plain), F.normalize(odds))
    assert torch.allclose(F.softplus(log_odds(logits, y)), F.cross_entropy(logits, y, reduction="none"))


@pytest.mark.parametrize("scale", [30.0, 200.0])
def test_log_odds_keep_a_slope_where_cross_entropy_has_none(scale: float) -> None:
    """In float32, where the model is sure."""
    logits = (scale * torch.tensor([[1.0, 0.0, -1.0]])).requires_grad_()
    (plain,) = torch.autograd.grad(F.cross_entropy(logits, one(0)), logits)
    (odds,) = torch.autograd.grad(log_odds(logits, one(0)).sum(), logits)
    assert plain[0, 0] == 0
    assert torch.allclose(odds, torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-6)
