"""What every attack keeps to, over norms, types, shapes, batch sizes and numbers of classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_runs import RADII, answers, every, images, linear, net, norms, run
from models_of_known_radii import Sphere
from small_models import Answering
from smallest_radii import into_sphere
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.threat_model import needs_gradient
from stresslens.core.answers import predicted
from stresslens.core.attack_base import margins, unwatched
from stresslens.core.ball import Ball, Norm
from stresslens.core.gradient_free import NoGradient as NoGradientError

cases = pytest.mark.parametrize(
    ("dtype", "shape", "n", "classes"),
    [
        (torch.float32, (1, 8, 8), 33, 10),
        (torch.float64, (3, 5, 7), 5, 3),
        (torch.float32, (3, 5, 7), 1, 2),
        (torch.float64, (1, 8, 8), 1, 10),
        (torch.float32, (1, 1, 2), 5, 5),
    ],
    ids=str,
)
OF_QUERIES = ("square", "hop_skip_jump", "boundary")


@pytest.mark.breadth
@every
@norms
@cases
def test_what_is_returned_lies_in_ball_and_box(
    name: str, norm: Norm, dtype: torch.dtype, shape: tuple[int, int, int], n: int, classes: int
) -> None:
    model, x = net(shape, classes, dtype), images(shape, n, dtype)
    y, before = answers(model, x).argmax(1), x.clone()
    y[::3] = (y[::3] + 1) % classes  # some are wrong before anything is attacked
    eps = RADII[norm] * torch.linspace(0, 1, n, dtype=dtype) if n > 1 else RADII[norm]
    ball = Ball(norm, eps)
    x_adv = run(name, model, x, y, ball)
    assert x_adv.shape == x.shape
    assert x_adv.dtype == dtype
    assert not x_adv.requires_grad
    assert ball.holds(x_adv, x).all()
    assert torch.equal(x, before)
    if n > 1:
        assert torch.equal(x_adv[0], x[0])  # its radius is 0


@pytest.mark.breadth
@every
@norms
def test_no_image_fools_less_than_it_did(name: str, norm: Norm) -> None:
    model, x = linear((1, 8, 8), 10), images((1, 8, 8), 33, torch.float64)
    z = answers(model, x)
    y = z.argmax(1)
    y[::4] = z.topk(3).indices[::4, 2]
    x_adv = run(name, model, x, y, Ball(norm, RADII[norm]))
    after = margins(answers(model, x_adv), y)
    assert (after[margins(z, y) < 0] < 0).all()
    assert after.mean() < margins(z, y).mean()


@every
def test_it_says_whether_it_follows_the_gradient(name: str) -> None:
    """One that does not has the function `needs_gradient`, which returns False, in its file."""
    inside, x = linear((1, 8, 8), 5), images((1, 8, 8), 9, torch.float64)
    y, ball = answers(inside, x).argmax(1), Ball("l2", 2.0)
    if needs_gradient(registry.resolve("attacks", name)):
        with pytest.raises(NoGradientError, match="the model has no gradient: it is a server"):
            run(name, Answering(inside), x, y, ball)
        return
    x_adv = run(name, Answering(inside), x, y, ball, surrogate=inside)
    assert ball.holds(x_adv, x).all()
    assert torch.equal(x_adv, run(name, inside, x, y, ball))


@pytest.mark.breadth
@every
@norms
def test_a_target_is_driven_at(name: str, norm: Norm) -> None:
    model, x = linear((1, 8, 8), 5), images((1, 8, 8), 17, torch.float64)
    z = answers(model, x)
    y, target = z.argmax(1), z.argmin(1)
    x_adv = run(name, model, x, y, Ball(norm, 10 * RADII[norm]), target=target)
    after = answers(model, x_adv)
    assert margins(after, target).mean() > margins(z, target).mean()
    if (
        name not in (*OF_QUERIES, "noise", "carlini_wagner") and norm != "l1"
    ):  # with more steps than these few
        assert (after.argmax(1) == target).float().mean() > 0.9


class Refusing(nn.Module):
    """No answer to what looks attacked: pixels that are not .3 or .6."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        off = (((x - 0.3).abs() > 1e-3) & ((x - 0.6).abs() > 1e-3)).flatten(1).any(1)
        return torch.where(off[:, None], torch.nan, self.net(x))


@pytest.mark.breadth
@every
@norms
def test_no_answer_is_a_success(name: str, norm: Norm) -> None:
    """An attack returns the image for which the model has no answer, if it fooled it in no other way."""
    model = Refusing(linear((1, 8, 8), 4, torch.float32))
    x = 0.3 + 0.3 * images((1, 8, 8), 17).round()
    y, ball = answers(model, x).argmax(1), Ball(norm, 10 * RADII[norm])
    x_adv = run(name, model, x, y, ball)
    assert (predicted(answers(model, x_adv)) != y).all()
    assert ball.holds(x_adv, x).all()


@pytest.mark.breadth
@every
@norms
def test_what_is_shown_is_what_was_computed(name: str, norm: Norm) -> None:
    """Rows name places of the batch, and the logits, of the images shown, are the model's."""
    model, x = net((1, 8, 8), 4), images((1, 8, 8), 6)
    y = answers(model, x).argmax(1)
    shown = 0

    def watch(
        rows: Tensor, x_adv: Tensor, logits: Tensor, loss: Tensor | None = None, grad: Tensor | None = None
    ) -> Tensor:
        nonlocal shown
        shown += 1
        assert len(rows) == len(x_adv) == len(logits)
        assert loss is None or loss.shape == rows.shape
        assert grad is None or grad.shape == x_adv.shape
        assert ((rows >= 0) & (rows < len(x))).all()
        with torch.no_grad():
            assert torch.allclose(model(x_adv), logits, atol=1e-5)
        return torch.ones(len(rows), dtype=torch.bool)

    run(name, model, x, y, Ball(norm, RADII[norm]), watch=watch)
    assert shown


@pytest.mark.breadth
@every
@norms
def test_an_attack_ends_when_everything_is_dropped(name: str, norm: Norm) -> None:
    model, x = net((1, 8, 8), 4), images((1, 8, 8), 40)
    y = answers(model, x).argmax(1)
    passes = 0

    def drop(rows: Tensor, *_: Any) -> Tensor:
        nonlocal passes
        passes += 1
        return torch.zeros(len(rows), dtype=torch.bool)

    x_adv = run(name, model, x, y, Ball(norm, RADII[norm]), watch=drop)
    assert 1 <= passes <= 2
    assert Ball(norm, RADII[norm]).holds(x_adv, x).all()


@pytest.mark.breadth
@every
@norms
@pytest.mark.parametrize("at", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_an_attack_ends_when_everything_is_dropped_on_the_way(name: str, norm: Norm, at: int) -> None:
    """Also the targets and restarts that are still to come: no batch is made of dropped images alone."""
    model, x = net((1, 8, 8), 10), images((1, 8, 8), 120)
    y = answers(model, x).argmax(1)
    dropped = torch.zeros(120, dtype=torch.bool)
    passes = 0

    def drop(rows: Tensor, *_: Any) -> Tensor:
        nonlocal passes
        assert not len(rows) or not dropped[rows].all()
        passes += 1
        dropped[rows] |= passes >= at
        return ~dropped[rows]

    run(name, model, x, y, Ball(norm, RADII[norm]), watch=drop)


@pytest.mark.breadth(5)
@every
def test_decided_images_change_nothing_for_the_rest(name: str) -> None:
    """Most images are dropped early, so that the batch is compacted: the rest are searched as before."""
    model, x = linear((1, 8, 8), 10), images((1, 8, 8), 96, torch.float64)
    y = answers(model, x).argmax(1)
    ball = Ball("linf" if name != "carlini_wagner" else "l2", 0.03)

    def watch(rows: Tensor, *_: Any) -> Tensor:
        return rows % 8 == 0

    kept = torch.arange(96) % 8 == 0
    alone, together = (
        answers(model, run(name, model, x, y, ball, watch=w))[kept] for w in (unwatched, watch)
    )
    assert torch.allclose(margins(alone, y[kept]), margins(together, y[kept]), atol=1e-9)


@pytest.mark.breadth(4)
@every
@norms
def test_verdicts_do_not_depend_on_batch_or_order(name: str, norm: Norm) -> None:
    model, x = net((1, 8, 8), 10), images((1, 8, 8), 33)
    y = answers(model, x).argmax(1)
    ball = Ball(norm, torch.linspace(0.2, 1, 33) * RADII[norm])
    whole = run(name, model, x, y, ball)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1))
    pieces = torch.empty_like(x)
    for rows in order.split(10):
        pieces[rows] = run(name, model, x[rows], y[rows], ball.select(rows), index=rows)
    first, second = (margins(answers(model, x_adv), y) for x_adv in (whole, pieces))
    clear = (first.abs() > 1e-4) & (second.abs() > 1e-4)
    assert ((first < 0) == (second < 0))[clear].all()
    again = run(name, model, x, y, ball)
    assert torch.equal(whole, again)


SEARCHES = {"steps": 60, "queries": 50, "searches": 5, "tries": 3, "starts": 8}
SPHERE_IS_MISSED = {
    "linf": (*OF_QUERIES, "noise", "linear_regions"),
    "l2": (*OF_QUERIES, "noise", "linear_regions", "carlini_wagner"),
    "l1": (*OF_QUERIES, "noise", "linear_regions", "fgsm", "deepfool"),
}
"""Attacks that need not come near to a curved boundary: they draw points (which may all miss a small
region), move few pixels, or take more steps than these."""


@pytest.mark.breadth(6)
@every
@norms
def test_a_curved_boundary_is_reached_where_it_is_and_not_nearer(name: str, norm: Norm) -> None:
    """A sphere, a quarter beyond its distance: nine of ten images at least; 1 % short of it none."""
    x = images((1, 8, 8), 24, torch.float64)
    centre = 0.3 + 0.4 * images((1, 8, 8), 1, torch.float64).flatten()
    sphere, y = Sphere(centre, 2.0), torch.zeros(24, dtype=torch.int64)
    distance = into_sphere(x.flatten(1), centre, 2.0, norm)
    assert (distance > 0).all()
    near = run(name, sphere, x, y, Ball(norm, 0.99 * distance), options=SEARCHES)
    assert (answers(sphere, near).argmax(1) == 0).all()
    if name not in SPHERE_IS_MISSED[norm]:
        beyond = run(name, sphere, x, y, Ball(norm, 1.25 * distance), options=SEARCHES)
        assert (answers(sphere, beyond).argmax(1) == 1).float().mean() >= 0.9
