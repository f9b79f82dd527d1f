"""The protocols break what can be broken, on small cases of what benchmarks/known_radii.py attacks."""

from __future__ import annotations

import pytest
import torch
from models_of_known_radii import CASES, images, normals, standing
from smallest_radii import to_any, to_plane

from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws

QUICK = ("unequal_planes", "dead_relu", "deep_plane", "into_ball", "out_of_ball")
MODELS = {case.__name__: case for case in CASES}
norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


@pytest.mark.breadth(1)
@norms
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_fast_leaves_no_breakable_image(name: str, norm: Norm) -> None:
    (left,), breakable = standing(MODELS[name](40), norm, ["fast"])
    assert breakable >= 19
    assert left == 0


@pytest.mark.slow
@norms
@pytest.mark.parametrize("name", MODELS)
def test_standard_leaves_no_breakable_image(name: str, norm: Norm) -> None:
    (left,), _ = standing(MODELS[name](24), norm, ["standard"])
    assert left == 0


@pytest.mark.breadth(5)
@norms
@pytest.mark.parametrize("name", QUICK)
def test_an_image_of_another_class_lies_at_each_radius_and_none_nearer(name: str, norm: Norm) -> None:
    """The radii are those of the models: many random points inside 0.98 of them change nothing."""
    case = MODELS[name](12)
    smallest = case.smallest(norm)
    assert (smallest > 0).all()
    with torch.no_grad():
        assert torch.equal(case.model(case.x).argmax(1), case.y)
        ball = Ball(norm, 0.98 * smallest.float())
        for seed in range(50):
            near = ball.sample(case.x, Draws(seed, torch.arange(12)))
            assert torch.equal(case.model(near).argmax(1), case.y)


def test_the_closed_forms_agree_with_the_programs() -> None:
    """A plane as a polyhedron of one side."""
    x, slope = images(0, 6).flatten(1).double(), normals(6, 1)
    gap = torch.full((6,), 0.4, dtype=torch.float64)
    for norm in ("linf", "l2", "l1"):
        closed = to_plane(x, slope, gap, norm)
        sides = [[(a[None], (a @ point + 0.4).reshape(1))] for a, point in zip(slope, x)]
        assert torch.allclose(to_any(x, sides, norm), closed, rtol=1e-5)
