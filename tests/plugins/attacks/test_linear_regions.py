"""Linear regions: boundaries that gradients near the image do not show are found from afar."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.attack_base import attacked, unwatched
from stresslens.core.ball import ABSOLUTE, Ball, Norm
from stresslens.core.draws import Draws
from stresslens.plugins.attacks._random_points import CELLS, random_point
from stresslens.plugins.attacks.linear_regions import _Chains, linear_regions

sys.path.insert(0, str(Path(__file__).parent))
from linear import lowest_cost

norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
GAINS = torch.tensor([1.0, 3.0, 9.0, 27.0, 81.0, 243.0], dtype=torch.float64)


class Highest(nn.Module):
    """Class 1 where the highest of some planes is above 0. A plane of a high gain is the highest
    only where it is nearly reached, so that gradients lead up others until then."""

    def __init__(self, gains: Tensor) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(5)
        self.normal = torch.randn(len(gains), 36, generator=random, dtype=torch.float64)
        self.offset = 2.5 + self.normal.sum(1) / 2
        self.gains = gains

    def heights(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.normal.T - self.offset

    def forward(self, x: Tensor) -> Tensor:
        highest = (self.gains * self.heights(x)).amax(1)
        return torch.stack([torch.zeros_like(highest), highest], 1)

    def smallest(self, x: Tensor, norm: Norm) -> Tensor:
        gaps, flat = -self.heights(x), x.flatten(1)
        ways = [lowest_cost(a.expand_as(flat), flat, gap, norm) for a, gap in zip(self.normal, gaps.T)]
        return torch.stack(ways).amin(0)


class Dead(nn.Module):
    """A plane behind a ReLU that is dead at every image that is not nearly there."""

    def __init__(self) -> None:
        super().__init__()
        self.normal = torch.randn(36, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        height = (x.flatten(1) @ self.normal - self.normal.sum() / 2 - 1.5).relu() - 0.5
        return torch.stack([torch.zeros_like(height), height], 1)


def images(model: nn.Module, n: int = 60) -> Tensor:
    """Images of class 0, many of their pixels black or white."""
    drawn = torch.rand(4 * n, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (0.5 + 0.9 * (drawn - 0.5)).clamp(0.15, 0.85)
    x[:, :, 0] = x[:, :, 0].round()
    return x[model(x).argmax(1) == 0][:n]


def run(attack: Any, model: nn.Module, x: Tensor, ball: Ball, **needs: Any) -> Tensor:
    y, draws = torch.zeros(len(x), dtype=torch.int64), Draws(0, torch.arange(len(x)))
    with attacked(model):
        x_adv: Tensor = registry.resolve("attacks", attack)(
            model=model, x=x, y=y, ball=ball, draws=draws, watch=needs.pop("watch", unwatched), **needs
        )
    return x_adv


@pytest.mark.breadth(1)
@norms
def test_a_maximum_of_planes_is_solved_exactly(norm: Norm) -> None:
    model = Highest(GAINS)
    x = images(model)
    smallest = model.smallest(x, norm)
    attack = {"linear_regions": {"starts": 256}}
    within = run(attack, model, x, Ball(norm, 1.001 * smallest))
    short = run(attack, model, x, Ball(norm, (0.999 * smallest - 2 * ABSOLUTE).clamp_min(0)))
    assert (model(within).argmax(1) == 1).all()
    assert (model(short).argmax(1) == 0).all()


@pytest.mark.breadth(1)
@norms
def test_gradients_alone_are_led_up_the_wrong_plane(norm: Norm) -> None:
    """What the attack is for: APGD on the margin leaves many of the same images."""
    model = Highest(GAINS)
    x = images(model)
    left = model(run("apgd", model, x, Ball(norm, 1.05 * model.smallest(x, norm)))).argmax(1) == 0
    assert left.float().mean() > 0.1


@norms
def test_a_dead_relu_hides_no_plane(norm: Norm) -> None:
    model = Dead()
    x = images(model)
    gap = model.normal.sum() / 2 + 2 - x.flatten(1) @ model.normal
    smallest = lowest_cost(model.normal.expand(len(x), -1), x.flatten(1), gap, norm)
    x_adv = run("linear_regions", model, x, Ball(norm, 1.001 * smallest))
    assert (model(x_adv).argmax(1) == 1).all()


def test_where_no_point_fools_the_model_planes_lead_the_way() -> None:
    """A single plane in a corner that no random point reaches."""
    model = Highest(torch.ones(1, dtype=torch.float64))
    model.offset = model.normal.clamp_min(0).sum(1) - 0.5
    x = torch.full((4, 1, 6, 6), 0.5, dtype=torch.float64)
    x_adv = run("linear_regions", model, x, Ball("linf", 0.6))
    assert (model(x_adv).argmax(1) == 1).all()


def test_more_starts_lose_nothing_and_an_image_has_its_own_points() -> None:
    model = Highest(GAINS)
    x = images(model, 20)
    ball = Ball("l2", model.smallest(x, "l2") * 1.01)
    few, many = (model(run({"linear_regions": {"starts": n}}, model, x, ball)).argmax(1) for n in (8, 256))
    assert int(few.sum()) < int(many.sum()) == 20
    draws = Draws(0, torch.arange(20))
    for index, cell in enumerate(CELLS):
        points = random_point(x, draws.fork(index), index)
        assert points.shape == x.shape
        assert ((points >= 0) & (points <= 1)).all()
        alone = random_point(x[7:8], draws.fork(index).select(torch.tensor([7])), index)
        assert torch.equal(points[7:8], alone)
        side = cell or 6
        assert torch.equal(points[:, :, :side, :side], points[:, :, :1, :1].expand(-1, -1, side, side))


def test_the_nearest_chains_that_fool_the_model_come_first() -> None:
    rows, fooled = torch.tensor([1, 0, 0, 0, 1]), torch.tensor([True, False, True, True, False])
    now = _Chains(rows, torch.zeros(5, 1, 1, 1), rows, fooled)
    kept = now.nearest(torch.tensor([3.0, 1.0, 9.0, 5.0, 2.0]), 2)
    assert kept.tolist() == [3, 2, 0, 4]


def test_images_in_pieces_are_attacked_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The random points of few images are in memory at a time where memory is short."""
    model = Highest(GAINS).eval()
    x = torch.rand(7, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, ball = model(x).argmax(1), Ball("l2", torch.linspace(0.5, 1.5, 7).double())
    seen: list[Tensor] = []

    def watch(rows: Tensor, z: Tensor, *others: Any) -> Tensor:
        seen.append(rows)
        return unwatched(rows, z, *others)

    def found() -> Tensor:
        seen.clear()
        with attacked(model):
            return linear_regions(model, x, y, ball, Draws(0, torch.arange(7)), watch, None, starts=20)

    whole = found()
    monkeypatch.setenv("STRESSLENS_MEMORY", "100KB")
    assert torch.equal(found(), whole)
    assert {len(rows.unique()) for rows in seen} == {1, 2}
    assert torch.cat(seen).unique().tolist() == list(range(7))
