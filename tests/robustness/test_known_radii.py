"""The protocols break what can be broken, on small cases of benchmarks/known_radii.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws

FILE = Path(__file__).parents[2] / "benchmarks" / "known_radii.py"


def _known_radii() -> ModuleType:
    spec = importlib.util.spec_from_file_location("known_radii", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["known_radii"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


known: Any = _known_radii()
QUICK = ("unequal_planes", "dead_relu", "deep_plane", "into_ball", "out_of_ball")
CASES = [case.__name__ for case in known.CASES]
norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


@norms
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_fast_leaves_no_breakable_image(name: str, norm: Norm) -> None:
    (left,), breakable = known.standing(getattr(known, name)(40), norm, ["fast"])
    assert breakable >= 19
    assert left == 0


@pytest.mark.slow
@norms
@pytest.mark.parametrize("name", CASES)
def test_standard_leaves_no_breakable_image(name: str, norm: Norm) -> None:
    (left,), _ = known.standing(getattr(known, name)(24), norm, ["standard"])
    assert left == 0


@norms
@pytest.mark.parametrize("name", QUICK)
def test_an_image_of_another_class_lies_at_each_radius_and_none_nearer(name: str, norm: Norm) -> None:
    """The radii are those of the models: many random points inside 0.98 of them change nothing."""
    case = getattr(known, name)(12)
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
    x, slope = known.images(0, 6).flatten(1).double(), known.normals(6, 1)
    gap = torch.full((6,), 0.4, dtype=torch.float64)
    for norm in ("linf", "l2", "l1"):
        closed = known.to_plane(x, slope, gap, norm)
        sides = [[(a[None], (a @ point + 0.4).reshape(1))] for a, point in zip(slope, x)]
        assert torch.allclose(known.to_any(x, sides, norm), closed, rtol=1e-5)
