"""The search of the page: what it finds changes the answer, lies in the ball, and is nearly the smallest."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.answers import predicted
from stresslens.core.ball import Ball, Norm
from stresslens.serve.live_attack import NEXT, AttackGoal, Attempt, LiveAttack


class Margin(nn.Module):
    """Two classes whose logits differ by a plane with known distances."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        plane = (x.flatten(1) - 0.5) @ self.weight
        return torch.stack([plane, -plane], 1)


def image(model: Margin) -> Tensor:
    """An image of class 0, one step from the middle."""
    return (0.5 + 0.1 * model.weight.detach().sign()).view(1, 1, 4, 4)


def last(model: nn.Module, x: Tensor, goal: AttackGoal) -> Attempt:
    *_, found = LiveAttack(model, x, int(predicted(model(x))[0]), goal).attempts()
    return found


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_smallest_change_of_a_linear_model(norm: Norm) -> None:
    model = Margin()
    x, weight = image(model), model.weight.detach()
    plane = float(model(x).detach()[0, 0])
    exact = plane / float(weight.abs().sum() if norm == "linf" else weight.norm())
    found = last(model, x, AttackGoal(norm, 3 * exact))
    assert found.x_adv is not None
    assert found.size is not None
    assert int(predicted(model(found.x_adv))[0]) == 1
    assert bool(Ball(norm, 3 * exact).holds(found.x_adv, x)[0])
    assert float(Ball(norm, 0.0).size(found.x_adv - x)[0]) == pytest.approx(found.size)
    assert exact * (1 - 1e-4) <= found.size <= exact / NEXT**2
    assert found.none_at < found.size
    assert model.weight.requires_grad  # it is as it was


def test_nothing_is_found_where_there_is_nothing() -> None:
    model = Margin()
    found = last(model, image(model), AttackGoal("linf", 0.05))
    assert (found.x_adv, found.size, found.none_at) == (None, None, 0.05)
    assert found.none_by == "pgd (steps 20, momentum 0.5) and apgd (loss ce, steps 50)"


def test_a_model_without_a_gradient_is_asked_for_answers() -> None:
    model = Margin()
    model.no_gradient = "a table"
    found = last(model, image(model), AttackGoal("l2", 2.0))
    assert found.x_adv is not None
    assert found.by.startswith("hop skip jump")
    assert int(predicted(model(found.x_adv))[0]) == 1


def test_a_search_that_is_left_leaves_the_model_as_it_was() -> None:
    model = Margin().train()
    search = LiveAttack(model, image(model), 0, AttackGoal("linf", 0.3)).attempts()
    next(search)
    search.close()
    assert model.training
    assert model.weight.requires_grad
