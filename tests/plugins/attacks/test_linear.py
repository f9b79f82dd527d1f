"""On linear models the best attack is known: those that claim to find it do, to 1e-6."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stresslens.config import registry
from stresslens.core.attack_base import attacked, margins, unwatched
from stresslens.core.ball import ABSOLUTE, RELATIVE, Ball, Norm
from stresslens.core.draws import Draws

sys.path.insert(0, str(Path(__file__).parent))
from linear import Linear, highest_rise, lowest_cost

classes = pytest.mark.parametrize("k", [2, 3, 5, 10])
norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
boxes = pytest.mark.parametrize("tight", [False, True], ids=["box inactive", "box active"])
RADII: dict[Norm, tuple[float, float]] = {"linf": (0.02, 0.1), "l2": (0.1, 0.6), "l1": (0.3, 3.0)}
"""Small enough that the box does not matter to images in its middle; large enough that it does to
black and white pixels."""
UNBOUNDED: dict[Norm, float] = {"linf": 1.0, "l2": 6.0, "l1": 36.0}


def run(case: Linear, name: str, ball: Ball, **options: Any) -> Tensor:
    draws = Draws(0, torch.arange(len(case.x)))
    with attacked(case.model):
        x_adv: Tensor = registry.resolve("attacks", {name: options})(
            model=case.model, x=case.x, y=case.y, ball=ball, draws=draws, watch=unwatched
        )
    assert ball.holds(x_adv, case.x).all()
    return x_adv


def margins_under(case: Linear, name: str, ball: Ball, **options: Any) -> Tensor:
    return margins(case.model(run(case, name, ball, **options)), case.y).detach()


@pytest.mark.breadth(6)
@classes
@norms
@boxes
def test_apgd_finds_the_lowest_margin(k: int, norm: Norm, tight: bool) -> None:
    case, eps = Linear.of(k, tight=tight), RADII[norm][tight]
    found = margins_under(case, "apgd", Ball(norm, eps), loss="margin_targeted", steps=10)
    assert torch.allclose(found, case.lowest_margins(eps, norm), rtol=0, atol=1e-6)


@pytest.mark.breadth(4)
@classes
@norms
@boxes
def test_apgd_loses_no_margin_that_can_be_lost(k: int, norm: Norm, tight: bool) -> None:
    """At a radius 1e-6 beyond each image's smallest, and 1e-6 short of it."""
    case = Linear.of(k, tight=tight)
    radii = case.smallest_radii(norm)
    assert (margins_under(case, "apgd", Ball(norm, radii * (1 + 1e-6)), steps=40) < 0).all()
    assert (margins_under(case, "apgd", Ball(norm, radii * (1 - 1e-6)), steps=40) > 0).all()


@pytest.mark.breadth(6)
@classes
@norms
@boxes
def test_fab_finds_the_smallest_radius(k: int, norm: Norm, tight: bool) -> None:
    case, ball = Linear.of(k, tight=tight), Ball(norm, UNBOUNDED[norm])
    x_adv = run(case, "fab", ball, steps=15)
    assert (margins(case.model(x_adv), case.y) < 0).all()
    assert torch.allclose(ball.size(x_adv - case.x), case.smallest_radii(norm), rtol=1e-6, atol=1e-6)


@pytest.mark.breadth(6)
@classes
@norms
@boxes
def test_fab_inside_a_ball_finds_what_lies_there(k: int, norm: Norm, tight: bool) -> None:
    case = Linear.of(k, tight=tight)
    eps = case.smallest_radii(norm) * torch.linspace(0.9, 1.1, len(case.x), dtype=torch.float64)
    found = margins_under(case, "fab", Ball(norm, eps), steps=15) < 0
    radii = case.smallest_radii(norm)
    clear = (radii - eps).abs() > 2 * ABSOLUTE + RELATIVE * eps  # nearer than that, rounding decides
    assert clear.sum() > len(radii) / 2
    assert torch.equal(found[clear], (radii < eps)[clear])


@classes
@norms
def test_deepfool_goes_its_overshoot_beyond_the_smallest_radius(k: int, norm: Norm) -> None:
    case, ball = Linear.of(k, tight=False), Ball(norm, UNBOUNDED[norm])
    radii = case.smallest_radii(norm)
    for overshoot in (1e-7, 0.02):
        x_adv = run(case, "deepfool", ball, overshoot=overshoot)
        free = ((x_adv > 0) & (x_adv < 1)).flatten(1).all(1)
        assert norm == "l1" or free.all()
        assert torch.allclose(ball.size(x_adv - case.x)[free], (1 + overshoot) * radii[free], rtol=1e-6)


@norms
@boxes
@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_two_classes_are_solved_by_one_step(name: str, norm: Norm, tight: bool) -> None:
    """In linf and l1 also at the box."""
    case, eps = Linear.of(2, tight=tight), RADII[norm][tight]
    options = {} if name == "fgsm" else {"random_start": False, "relative_step": 1.0, "steps": 5}
    found, lowest = margins_under(case, name, Ball(norm, eps), **options), case.lowest_margins(eps, norm)
    assert (found >= lowest - 1e-9).all()
    if norm != "l2" or not tight:
        assert torch.allclose(found, lowest, rtol=0, atol=1e-9)


def test_two_classes_are_solved_by_pgd_from_anywhere() -> None:
    for norm, (eps, _) in RADII.items():
        case = Linear.of(2, tight=False)
        found = margins_under(case, "pgd", Ball(norm, eps), steps=200, relative_step=0.5)
        assert torch.allclose(found, case.lowest_margins(eps, norm), rtol=0, atol=1e-6)


def test_cross_entropy_is_not_exact_for_several_classes() -> None:
    """Which is why no attack that raises it claims to be: it weighs all other classes, while the
    nearest one is enough."""
    case, eps = Linear.of(10, tight=False, n=40), 0.05
    found = margins_under(case, "apgd", Ball("linf", eps), loss="ce")
    lowest = case.lowest_margins(eps, "linf")
    assert (found >= lowest - 1e-9).all()
    assert (found > lowest + 1e-3).any()


def test_the_reference_agrees_with_the_closed_form_while_the_box_is_inactive() -> None:
    """‖slope‖ of the dual norm times the radius."""
    slope = torch.tensor([[3.0, -4.0, 0.5]], dtype=torch.float64)
    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    duals: dict[Norm, float] = {"linf": 7.5, "l2": 25.25**0.5, "l1": 4.0}
    for norm, dual in duals.items():
        assert float(highest_rise(slope, x, 0.1, norm)) == pytest.approx(0.1 * dual)
        assert float(lowest_cost(slope, x, torch.tensor([0.1 * dual]), norm)) == pytest.approx(0.1)
