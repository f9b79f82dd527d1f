"""Every attack on models that show nothing or break, and what is left of a model afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from attack_runs import RADII, answers, every, images, net, norms, run
from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, margins
from stresslens.core.ball import Ball, Norm


class Constant(nn.Module):
    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits + 0 * x.flatten(1).sum(1, keepdim=True)


class NoGradient(Constant):
    def forward(self, x: Tensor) -> Tensor:
        return self.logits.detach().expand(len(x), -1).clone()


STUCK: dict[str, Callable[[], nn.Module]] = {
    "zero gradient": lambda: Constant([3.0, 1.0, 0.0, -2.0]),
    "no gradient": lambda: NoGradient([3.0, 1.0, 0.0, -2.0]),
    "all equal": lambda: Constant([0.0] * 4),
    "NaN": lambda: Constant([torch.nan] * 4),
    "infinite": lambda: Constant([torch.inf, 0.0, -torch.inf, 1.0]),
}


@pytest.mark.breadth
@every
@norms
@pytest.mark.parametrize("stuck", list(STUCK))
def test_models_that_show_nothing_crash_nothing(name: str, norm: Norm, stuck: str) -> None:
    model, x = STUCK[stuck](), images((1, 8, 8), 5)
    ball = Ball(norm, RADII[norm])
    x_adv = run(name, model, x, torch.zeros(5, dtype=torch.int64), ball)
    assert ball.holds(x_adv, x).all()


@pytest.mark.breadth
@every
@norms
def test_no_images_are_no_trouble(name: str, norm: Norm) -> None:
    x = images((1, 8, 8), 5)[:0]
    assert (
        run(name, net((1, 8, 8), 4), x, torch.zeros(0, dtype=torch.int64), Ball(norm, 0.1)).shape == x.shape
    )


@pytest.mark.breadth
@every
@norms
def test_a_steered_model_is_attacked_like_any(name: str, norm: Norm) -> None:
    """In pieces of 4 images, which must not change the draws."""
    model, x = net((1, 8, 8), 4, torch.float64), images((1, 8, 8), 9, torch.float64)
    y = answers(model, x).argmax(1)
    ball = Ball(norm, RADII[norm])
    whole, pieces = (run(name, seen, x, y, ball) for seen in (model, BatchedModel(model, batch=4)))
    assert torch.allclose(*(margins(answers(model, x_adv), y) for x_adv in (whole, pieces)), atol=1e-6)


class Breaks(nn.Module):
    """Raises at its second pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == 2:
            raise RuntimeError("no more")
        return x


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Weights, buffers, modes, requires_grad, gradients and the global random state are afterwards
    as they were."""

    def state() -> tuple[Any, ...]:
        values = {name: value.clone() for name, value in model.state_dict().items()}
        asked = [(p.requires_grad, p.grad is None) for p in model.parameters()]
        return values, [module.training for module in model.modules()], asked, torch.random.get_rng_state()

    before = state()
    yield
    after = state()
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])


@pytest.mark.breadth
@every
@pytest.mark.parametrize("breaks", [False, True], ids=["to its end", "after an exception"])
def test_the_model_is_afterwards_as_it_was(name: str, breaks: bool) -> None:
    inside = net((1, 8, 8), 4)
    model = nn.Sequential(Breaks() if breaks else nn.Identity(), inside)
    inside[0].weight.requires_grad_(False)
    inside[1].eval()
    x = images((1, 8, 8), 5)
    ball = Ball("l2", 0.5)
    torch.rand(1)
    with unchanged(model):
        if breaks:
            with pytest.raises(RuntimeError, match="no more"):
                run(name, model, x, torch.zeros(5, dtype=torch.int64), ball)
        else:
            run(name, model, x, torch.zeros(5, dtype=torch.int64), ball)
