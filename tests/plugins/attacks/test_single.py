"""What only one attack promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.attack_base import BatchedModel, attacked, margins, unwatched
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.layers import StraightThrough
from stresslens.plugins.attacks._plane import onto_plane
from stresslens.plugins.attacks.apgd import _check_progress, _State
from stresslens.plugins.attacks.square import HALVED_AT, _bump, _side
from stresslens.robustness.attack_batch import AttackBatch, verdict_model


def run(attack: Any, model: nn.Module, x: Tensor, y: Tensor, ball: Ball, **needs: Any) -> Tensor:
    draws = Draws(needs.get("seed", 0), torch.arange(len(x)))
    with attacked(model):
        result: Tensor = registry.resolve("attacks", attack)(
            model=model,
            x=x,
            y=y,
            ball=ball,
            draws=draws,
            watch=needs.get("watch", unwatched),
            target=needs.get("target"),
            start=needs.get("start"),
            surrogate=needs.get("surrogate"),
        )
    return result


def net(seed: int = 0, classes: int = 5) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))


def images(n: int = 24) -> Tensor:
    return (1.6 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(n)) - 0.3).clamp(0, 1)


def labels(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def lowest(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return margins(model(x_adv), y)


@pytest.mark.parametrize("attack", ["pgd", "apgd", "fab"])
def test_more_restarts_lose_nothing(attack: str) -> None:
    model, x = net(), images()
    y = labels(model, x)
    ball = Ball("l2", 0.5)
    once, thrice = (run({attack: {"steps": 8, "restarts": n}}, model, x, y, ball) for n in (1, 3))
    before, after = lowest(model, once, y), lowest(model, thrice, y)
    assert (after[before < 0] < 0).all()
    if attack == "fab":  # which keeps the smallest of those that fool
        assert (ball.size(thrice - x) <= ball.size(once - x) + 1e-6)[before < 0].all()
    else:
        assert (after <= before + 1e-6).all()


def test_a_search_goes_on_from_its_start() -> None:
    """With no step to speak of, the start is what is returned."""
    model, x = net(), images()
    y = labels(model, x)
    start = Ball("linf", 0.1).project(x + 0.1 * (torch.rand_like(x) - 0.5).sign(), x)
    worse = lowest(model, start, y) < lowest(model, x, y)
    x_adv = run({"pgd": {"steps": 1, "step_size": 1e-9}}, model, x, y, Ball("linf", 0.1), start=start)
    assert torch.allclose(x_adv[worse], start[worse], atol=1e-6)


def test_apgd_is_at_least_as_good_as_pgd_of_as_many_steps() -> None:
    model, x = net(), images(60)
    y = labels(model, x)
    ball = Ball("linf", 0.05)
    plain = lowest(model, run({"pgd": {"steps": 50}}, model, x, y, ball), y)
    auto = lowest(model, run({"apgd": {"steps": 50}}, model, x, y, ball), y)
    assert int((auto < 0).sum()) >= int((plain < 0).sum())


def test_apgd_attacks_what_is_sure_beyond_float32() -> None:
    """Logits a thousandfold: plain cross-entropy has no gradient left, log-odds and DLR do."""
    model, x = net(), images()
    y = labels(model, x)
    with torch.no_grad():
        model[3].weight.mul_(1000)
        model[3].bias.mul_(1000)
    ball = Ball("linf", 0.1)
    broken = {
        label: int((lowest(model, run(attack, model, x, y, ball), y) < 0).sum())
        for label, attack in {
            "pgd": {"pgd": {"random_start": False}},
            "ce": {"apgd": {"loss": "ce"}},
            "auto": "apgd",
        }.items()
    }
    assert broken["pgd"] < broken["ce"]
    assert broken["pgd"] < broken["auto"]


class Hill(nn.Module):
    """Class 1 is highest at one image: its logit falls with the square of the distance to it."""

    def __init__(self, top: Tensor) -> None:
        super().__init__()
        self.register_buffer("top", top)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(
            [torch.zeros(len(x), dtype=x.dtype), -(x - self.top).flatten(1).square().sum(1)], 1
        )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_shortens_its_steps_to_reach_a_top_inside_the_ball(norm: Any) -> None:
    """Steps of twice the radius jump over it for ever."""
    x = torch.full((4, 1, 4, 4), 0.5, dtype=torch.float64)
    around = Ball(norm, 0.3 if norm == "linf" else 1.2)
    top = around.sample(x[:1], Draws(1, torch.arange(1)))
    away = [
        around.size(run({"apgd": {"steps": n}}, Hill(top), x, x[:, 0, 0, 0].long(), around) - top)
        for n in (5, 100)
    ]
    assert (away[1] < 0.05 * away[0]).all()


def test_apgd_goes_on_from_its_peak_with_half_the_step() -> None:
    """Of three rows the first rose often enough; the second too seldom; of the third the peak did
    not move."""
    images, none = torch.arange(3.0).reshape(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64)
    state = _State(
        none, images, none, none, images, images, images, none.double(), 10 + images, 20 + images,
        torch.tensor([5.0, 5.0, 5.0]), torch.ones(3, 1, 1, 1), torch.tensor([9, 2, 9]),
        torch.tensor([4.0, 4.0, 5.0]), none > 0, none, none,
    )  # fmt: skip
    for value in (
        3.0,
        4.0,
        1.0,
    ):  # rows 1 and 2 stay below their peaks of 5; row 0, at 8 from here on, is where it was highest
        state.update(images + value, torch.tensor([2 * value, value, value]), 20 + images)
    assert state.peak.flatten().tolist() == [4, 11, 12]
    assert state.height.tolist() == [8, 5, 5]
    assert state.risen.tolist() == [11, 4, 11]
    state.z, state.grad = images, images
    _check_progress(state, enough=7.5)
    assert state.z.flatten().tolist() == [0, 11, 12]
    assert state.grad.flatten().tolist() == [0, 21, 22]
    assert state.length.flatten().tolist() == [1, 0.5, 0.5]
    assert state.risen.tolist() == [0, 0, 0]
    _check_progress(state, enough=0)
    assert state.shortened.tolist() == [
        True,
        False,
        False,
    ]  # a step that was just shortened is given its time


def test_deepfool_passes_over_a_class_that_has_no_boundary() -> None:
    """Class 2 follows class 0 a little below it: its plane has no normal, and its distance of
    nothing is none."""

    class Shadow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            first = x.flatten(1).sum(1) - 8
            return torch.stack([first, -first, first - 0.01], 1)

    x = torch.full((2, 1, 4, 4), 0.6)
    x_adv = run("deepfool", Shadow(), x, torch.zeros(2, dtype=torch.int64), Ball("l2", 4.0))
    assert torch.equal(labels(Shadow(), x_adv), torch.ones(2, dtype=torch.int64))


@pytest.mark.slow
def test_carlini_wagner_moves_black_and_white_pixels() -> None:
    """Nothing but pixels at exactly 0 and 1, where an arc tangent of the tanh is infinite."""
    model, x = net(), images().round()
    y = labels(model, x)
    x_adv = run("carlini_wagner", model, x, y, Ball("l2", 8.0))
    assert (lowest(model, x_adv, y) < 0).all()
    smallest = Ball("l2", 8.0).size(run("fab", model, x, y, Ball("l2", 8.0)) - x)
    assert (Ball("l2", 8.0).size(x_adv - x) < 1.3 * smallest).float().mean() > 0.8


@pytest.mark.slow
def test_carlini_wagner_reaches_its_confidence_and_target() -> None:
    model, x = net(), images()
    y = labels(model, x)
    target = (y + 1) % 5
    x_adv = run({"carlini_wagner": {"confidence": 0.2}}, model, x, y, Ball("l2", 8.0), target=target)
    with torch.no_grad():
        assert (margins(model(x_adv), target) > 0).float().mean() > 0.9
    with pytest.raises(ConfigError, match="not of linf"):
        run("carlini_wagner", model, x, y, Ball("linf", 0.1))


def test_transfer_wants_a_surrogate_and_shows_what_it_made_there() -> None:
    model, other, x = net(0), net(1), images()
    y = labels(model, x)
    with pytest.raises(ConfigError, match="surrogate"):
        run("transfer", model, x, y, Ball("linf", 0.1))
    crafted = run("fgsm", other, x, y, Ball("linf", 0.1))
    shown = run({"transfer": {"attack": "fgsm"}}, model, x, y, Ball("linf", 0.1), surrogate=other)
    helps = lowest(model, crafted, y) < lowest(model, x, y)
    assert helps.any()
    assert torch.equal(shown[helps], crafted[helps])
    assert torch.equal(shown[~helps], x[~helps])
    assert all(p.requires_grad for p in other.parameters())


def test_square_changes_something_at_every_query() -> None:
    """On black pixels of one channel a square of −ε would change nothing: its other sign does."""
    model, x = net(), torch.zeros(4, 1, 8, 8)
    seen: list[Tensor] = []

    def watch(rows: Tensor, x_adv: Tensor, *_: Any) -> Tensor:
        seen.append(x_adv)
        return torch.ones(len(rows), dtype=torch.bool)

    run({"square": {"queries": 60}}, model, x, labels(model, x), Ball("linf", 0.2), watch=watch)
    reached, value = seen[1], lowest(model, seen[1], labels(model, x))
    for query, z in enumerate(seen[2:], 1):
        differs = (z != reached)[:, 0]
        side = _side(0.8, query / 60, x.shape, 1)
        for line in (
            differs.any(1),
            differs.any(2),
        ):  # (4, 8): columns, rows, of one square around the best so far
            places = torch.arange(8).expand(4, 8)
            first, last = torch.where(line, places, 8).amin(1), torch.where(line, places, -1).amax(1)
            assert ((last - first >= 0) & (last - first < side)).all()
        now = lowest(model, z, labels(model, x))
        better = now < value
        reached, value = torch.where(better.reshape(-1, 1, 1, 1), z, reached), torch.where(better, now, value)


def test_squares_shrink_as_the_paper_says() -> None:
    """28 × 28 pixels, p = .8: 25 pixels wide at first, halved in area at each of nine points, never
    below one."""
    shape = torch.Size((1, 1, 28, 28))
    assert _side(0.8, 0, shape, 1) == 25
    assert [_side(0.8, (at + 1) / 10_000, shape, 1) for at in HALVED_AT] == [18, 13, 9, 6, 4, 3, 2, 2, 1]
    assert _side(0.8, 0, torch.Size((1, 3, 2, 40)), 3) == 2


@pytest.mark.parametrize("side", [1, 2, 3, 8])
def test_a_bump_has_length_one_and_two_signs(side: int) -> None:
    bump = _bump(side, torch.zeros(1, dtype=torch.float64))
    assert bump.shape == (side, side)
    assert float(bump.norm()) == pytest.approx(1)
    assert side == 1 or float(bump.min()) < 0 < float(bump.max())


def test_the_way_to_a_plane_by_hand() -> None:
    """3δ₁ + 4δ₂ = 2.5 from (0.5, 0.9): of two dimensions the second has only 0.1 of room."""
    point, normal = (
        torch.tensor([[[[0.5, 0.9]]]], dtype=torch.float64),
        torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64),
    )
    near, far = torch.tensor([0.25], dtype=torch.float64), torch.tensor([1.3], dtype=torch.float64)
    found = {
        norm: [onto_plane(point, normal, rise, norm).flatten() for rise in (near, far)]
        for norm in ("linf", "l2", "l1")
    }
    expected = {"linf": [0.25 / 7] * 2, "l2": [0.03, 0.04], "l1": [0.0, 0.0625]}
    for norm, (free, boxed) in found.items():
        assert free.tolist() == pytest.approx(expected[norm])
        assert boxed.tolist() == pytest.approx([0.3, 0.1])  # 3·0.3 + 4·0.1 = 1.3
    beyond = onto_plane(point, normal, torch.tensor([100.0], dtype=torch.float64), "l2")
    assert beyond.flatten().tolist() == pytest.approx([0.5, 0.1])
    down = onto_plane(point, normal, -near, "l2")
    assert down.flatten().tolist() == pytest.approx([-0.03, -0.04])


def test_what_has_no_gradient_is_attacked_straight_through() -> None:
    """Eight grey levels in front of a net stop every gradient; the identity in their place lets it
    through."""

    def quantised(x: Tensor) -> Tensor:
        return (7 * x).round() / 7

    class Quantise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return quantised(x)

    x, ball = images(40), Ball("linf", 0.1)
    stopped, through = nn.Sequential(Quantise(), net()), nn.Sequential(StraightThrough(quantised), net())
    y = labels(stopped, x)
    with torch.no_grad():
        assert torch.equal(stopped(x), through(x))
    broken = [
        int((lowest(stopped, run("apgd", model, x, y, ball), y) < 0).sum()) for model in (stopped, through)
    ]
    assert broken[1] > broken[0]
    point = x.clone().requires_grad_()
    StraightThrough(quantised, lambda z: z.square())(point).sum().backward()
    assert point.grad is not None
    assert torch.allclose(point.grad, 2 * x)
    with pytest.raises(ConfigError, match="StraightThrough"):
        StraightThrough(lambda z: z[:, :, :4])(x)


def test_deepfool_returns_what_it_brought_to_the_edge() -> None:
    """The way cut off at the ball's edge lies there up to rounding, and counts."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Tanh(), nn.Linear(24, 5))
    x = torch.rand(60, 1, 8, 8)
    y = model(x).argmax(1)
    with attacked(model):
        search = AttackBatch(verdict_model(model), x, y, Ball("linf", 0.03), drop=False)
        trace, _ = search.attack_unbroken(
            registry.resolve("attacks", "deepfool"),
            BatchedModel(model),
            Draws(0, torch.arange(60)),
            name="deepfool",
        )
    assert trace.broke > 5
    assert trace.silent == 0
