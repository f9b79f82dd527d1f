"""Balls of all three norms: the projection is idempotent, inside and nearest; the steepest and the
farthest are the maximisers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stresslens.core.ball import Ball, Norm, parse_radii, parse_radius, single_radius
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError

DTYPES = {torch.float32: 2e-5, torch.float64: 1e-10}
norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
quickly = settings(max_examples=40, deadline=None)
random = st.integers(0, 10_000)
dtypes = st.sampled_from(list(DTYPES))
shapes = st.sampled_from([(1, 1, 1), (1, 4, 4), (3, 2, 5)])


def drawn(
    seed: int, shape: tuple[int, int, int], dtype: torch.dtype, n: int = 4
) -> tuple[Tensor, Tensor, Tensor]:
    """Images with black and white pixels, points about them, some far outside the box, and a radius
    for each."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(n, *shape, generator=generator, dtype=torch.float64)

    x = (0.5 + normal()).clamp(0, 1)
    far = 10 ** (2 * torch.rand(n, 1, 1, 1, generator=generator, dtype=torch.float64) - 1)
    eps = torch.rand(n, generator=generator, dtype=torch.float64)
    eps[0] = 0
    return x.to(dtype), (x + far * normal()).to(dtype), eps.to(dtype)


def radii(eps: Tensor, norm: Norm, shape: tuple[int, int, int]) -> Tensor:
    """From 0 to a size that reaches most of the box."""
    return eps * {"linf": 1.0, "l2": math.sqrt(math.prod(shape)), "l1": float(math.prod(shape))}[norm]


@norms
@quickly
@given(seed=random, shape=shapes, dtype=dtypes)
def test_a_projection_lies_inside_and_stays(
    norm: Norm, seed: int, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    x, z, eps = drawn(seed, shape, dtype)
    ball = Ball(norm, radii(eps, norm, shape))
    near = ball.project(z, x)
    assert ball.holds(near, x).all()
    assert near.dtype == dtype
    assert torch.equal(near[0], x[0])
    assert torch.allclose(ball.project(near, x), near, rtol=0, atol=DTYPES[dtype])
    assert torch.allclose(ball.project(x, x), x)


@norms
@quickly
@given(seed=random, shape=shapes)
def test_no_point_of_ball_and_box_is_nearer(norm: Norm, seed: int, shape: tuple[int, int, int]) -> None:
    """The angle between what is left and the way to any other point is never acute: what marks the
    nearest of a convex set."""
    x, z, eps = drawn(seed, shape, torch.float64)
    ball = Ball(norm, radii(eps, norm, shape))
    near = ball.project(z, x)
    left = z - near
    if (
        norm == "linf"
    ):  # any point of the set will do: clamped coordinate by coordinate it is the nearest in l2 too
        assert torch.equal(near, z.clamp(x - ball.radius(x), x + ball.radius(x)).clamp(0, 1))
    others = [ball.sample(x, Draws(i, torch.arange(len(x)))) for i in range(8)] + [ball.farthest(left, x), x]
    for other in others:
        assert ((left * (other - near)).flatten(1).sum(1) <= 1e-9 * (1 + left.flatten(1).abs().sum(1))).all()


def slowly(delta: list[float], x: list[float], eps: float, norm: Norm) -> list[float]:
    """The multiplier by bisection: in l1 what is taken off every entry, in l2 what every entry is
    divided by, less 1."""

    def moved(multiplier: float) -> list[float]:
        wish = [abs(d) - multiplier if norm == "l1" else abs(d) / (1 + multiplier) for d in delta]
        return [math.copysign(min(max(w, 0), 1 - p if d > 0 else p), d) for w, d, p in zip(wish, delta, x)]

    def size(move: list[float]) -> float:
        return sum(map(abs, move)) if norm == "l1" else math.hypot(*move)

    low, high = 0.0, 1e9
    if size(moved(0)) <= eps:
        return moved(0)
    for _ in range(150):
        middle = (low + high) / 2
        low, high = (middle, high) if size(moved(middle)) > eps else (low, middle)
    return moved(high)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@quickly
@given(seed=random, shape=shapes)
def test_a_projection_is_the_slow_one(norm: Norm, seed: int, shape: tuple[int, int, int]) -> None:
    x, z, eps = drawn(seed, shape, torch.float64)
    eps = radii(eps, norm, shape)
    near = Ball(norm, eps).project(z, x)
    for i in range(1, len(x)):
        slow = slowly((z - x)[i].flatten().tolist(), x[i].flatten().tolist(), float(eps[i]), norm)
        assert torch.allclose((near - x)[i].flatten(), torch.tensor(slow, dtype=torch.float64), atol=1e-7)


@norms
@quickly
@given(seed=random, shape=shapes, dtype=dtypes)
def test_the_steepest_direction_rises_most(
    norm: Norm, seed: int, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """By the dual norm of the gradient; it has size 1."""
    _, grad, _ = drawn(seed, shape, dtype)
    ball = Ball(norm, 0.5)
    steep = ball.steepest(grad)
    flat = grad.flatten(1).double()
    dual = {"linf": flat.abs().sum(1), "l2": flat.norm(dim=1), "l1": flat.abs().amax(1)}[norm]
    assert torch.allclose(ball.size(steep).double(), torch.ones(len(grad), dtype=torch.float64), atol=1e-5)
    assert torch.allclose((steep.flatten(1).double() * flat).sum(1), dual, rtol=1e-5)
    assert not ball.steepest(torch.zeros_like(grad)).any()


@norms
@quickly
@given(seed=random, shape=shapes)
def test_the_farthest_point_is_where_huge_steps_end(
    norm: Norm, seed: int, shape: tuple[int, int, int]
) -> None:
    x, grad, eps = drawn(seed, shape, torch.float64)
    grad[1] = 0
    ball = Ball(norm, radii(eps, norm, shape))
    far = ball.farthest(grad, x)
    assert ball.holds(far, x).all()
    assert torch.equal(far[1], x[1])
    rise = (grad * (far - x)).flatten(1).sum(1)
    for factor in (1e2, 1e5):  # whose rounding is 1e-16 of themselves
        other = ball.project(x + factor * grad, x)
        assert (rise >= (grad * (other - x)).flatten(1).sum(1) - 1e-7).all()


def test_l2_and_tiny_gradients() -> None:
    """Their squares are zero in float32; their directions are not."""
    grad = torch.full((1, 1, 2, 2), 1e-30)
    assert torch.allclose(Ball("l2", 1).steepest(grad), torch.full_like(grad, 0.5))


def one(*pixels: float) -> Tensor:
    return torch.tensor(pixels, dtype=torch.float64).reshape(1, 1, 1, -1)


def test_the_steepest_direction_passes_over_pixels_that_the_box_stops() -> None:
    """The first pixel is white and would rise; the second is black and would fall."""
    x, grad = one(1.0, 0.0, 0.5, 0.5), one(9.0, -8.0, -2.0, 1.0)
    assert Ball("l1", 1).steepest(grad).flatten().tolist() == [1, 0, 0, 0]
    assert Ball("l1", 1).steepest(grad, x).flatten().tolist() == [0, 0, -1, 0]
    assert Ball("linf", 1).steepest(grad, x).flatten().tolist() == [0, 0, -1, 1]
    assert torch.allclose(Ball("l2", 1).steepest(grad, x), one(0, 0, -2, 1) / 5**0.5)


def test_a_steepest_step_in_l1_by_hand() -> None:
    """0.4 long: the first pixel has 0.1 of room, the next takes the rest; shared by two, it takes
    half of the length, and the third what is left."""
    ball, x, grad = Ball("l1", 1), one(0.9, 0.5, 0.5, 0.0), one(3.0, -2.0, 1.0, -9.0)
    assert torch.allclose(ball.steepest_step(grad, x, 0.4), one(1.0, 0.2, 0.5, 0.0))
    assert torch.allclose(ball.steepest_step(grad, x, 0.4, entries=2), one(1.0, 0.3, 0.6, 0.0))
    assert torch.allclose(ball.steepest_step(grad, x, 9.0), one(1.0, 0.0, 1.0, 0.0))
    assert torch.equal(ball.steepest_step(0 * grad, x, 0.4), x)


@quickly
@given(seed=random, shape=shapes)
def test_a_steepest_step_in_l1_rises_as_far_as_its_length_allows(
    seed: int, shape: tuple[int, int, int]
) -> None:
    x, grad, eps = drawn(seed, shape, torch.float64)
    length = radii(eps, "l1", shape)
    stepped = Ball("l1", 1).steepest_step(grad, x, length.reshape(-1, 1, 1, 1))
    ball = Ball("l1", length)
    assert ball.holds(stepped, x).all()
    rise = (grad * (stepped - x)).flatten(1).sum(1)
    for factor in (1.0, 1e2, 1e5):
        other = ball.project(x + factor * grad, x)
        assert (rise >= (grad * (other - x)).flatten(1).sum(1) - 1e-7).all()


@norms
def test_gradient_steps_find_the_highest_point_of_a_round_hill(norm: Norm) -> None:
    """Its top lies outside the ball; the highest point inside is the projection of the top."""
    x, top, eps = drawn(3, (1, 4, 4), torch.float64)
    top = top.clamp(0, 1)
    ball = Ball(norm, radii(0.2 * eps, norm, (1, 4, 4)))
    best = ball.project(top, x)
    z = x
    for index in range(400):
        z = ball.project(ball.gradient_step(top - z, z, 0.5 * 0.97**index), x)
    if norm == "linf":  # the highest point is not the nearest to the top in one way only
        assert torch.allclose(
            (top - z).flatten(1).norm(dim=1), (top - best).flatten(1).norm(dim=1), atol=1e-4
        )
    else:
        assert torch.allclose(z, best, atol=1e-4)


@norms
@quickly
@given(seed=random, shape=shapes)
def test_samples_lie_inside_and_belong_to_their_image(
    norm: Norm, seed: int, shape: tuple[int, int, int]
) -> None:
    x, _, eps = drawn(seed, shape, torch.float32)
    ball = Ball(norm, radii(eps, norm, shape))
    found = ball.sample(x, Draws(seed, torch.arange(len(x))))
    assert ball.holds(found, x).all()
    rows = torch.tensor([2, 1])
    assert torch.equal(ball.select(rows).sample(x[rows], Draws(seed, rows)), found[rows])


@norms
def test_samples_fill_the_ball(norm: Norm) -> None:
    """The share of a uniform sample within half the radius is 2 to the power of minus the dimensions."""
    x = torch.full((4000, 1, 1, 2), 0.5)
    ball = Ball(norm, 0.4)
    size = ball.size(ball.sample(x, Draws(0, torch.arange(4000))) - x)
    assert float((size < 0.2).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(size.max()) > 0.39


def test_what_a_ball_holds() -> None:
    ball, x = Ball("linf", 0.1), torch.full((5, 1, 1, 1), 0.95)
    x_adv = x + torch.tensor([0.05, 0.05002, -0.1000001, -0.101, torch.nan]).reshape(-1, 1, 1, 1)
    assert ball.holds(x_adv, x).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("linf", -0.1, "from 0 up"),
        ("linf", 8.0, "did you mean 8/255"),
        ("l2", math.inf, "finite"),
        ("l2", math.nan, "finite"),
        ("l2", True, "finite"),
        ("linv", 0.1, "did you mean 'linf'"),
    ],
)
def test_radii_that_cannot_be_meant_are_refused(norm: Any, eps: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ball(norm, eps)


def test_an_absurd_radius_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="any other"):
        Ball("l2", 255.0)


def test_radii_are_read() -> None:
    assert parse_radius("8/255") == pytest.approx(8 / 255)
    assert parse_radii("0:0.1:0.05", "linf") == [0.0, 0.05, 0.1]
    assert parse_radii("2/255, 0,0.5", "linf") == [0.0, 2 / 255, 0.5]
    assert parse_radii([0.2, "1/10", 0.2], "l2") == [0.1, 0.2]
    assert parse_radii(0.3, "linf") == [0.3]


@pytest.mark.parametrize(
    "text",
    [
        *("0:0.1", "0:0.1:0", "0:0.1:0.03", "a", "1/0", "2", "-1", "0:1:0.0001", []),
        *("0:inf:1", "nan:1:1", "0:1:nan", "0:1e308:1e-300", "-inf:inf:inf", "inf", "nan"),
    ],
)
def test_radii_that_cannot_be_read_are_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match=r"radi"):
        parse_radii(text, "linf")


@pytest.mark.parametrize(
    "value",
    [
        *(0.03, "0.03", "3/100", [0.03], ("0.03",), np.float32(0.03), np.array(0.03), np.array([0.03])),
        *(np.array([[0.03]], np.float32), np.array(["0.03"]), [np.array([0.03])]),
        *(torch.tensor(0.03), torch.tensor([0.03], dtype=torch.float16)),
    ],
    ids=repr,
)
def test_one_radius_is_read_from_whatever_holds_it(value: Any) -> None:
    assert single_radius(value) == pytest.approx(0.03, rel=1e-3)
    assert type(single_radius(value)) is float


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), None, "a", [], [0.1, 0.2], np.array([0.1, 0.2]), torch.tensor([0.1, 0.2]), {}],
    ids=repr,
)
def test_what_is_not_one_radius_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="expected a number or a fraction such as 8/255"):
        single_radius(value)
