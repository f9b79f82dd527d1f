"""Adversarial, free and TRADES training against closed forms of a linear model of two classes, and
what their options mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.types import Step, reported
from stresslens.plugins.losses.cross_entropy import cross_entropy
from stresslens.plugins.objectives.adversarial import adversarial
from stresslens.plugins.objectives.free import free
from stresslens.plugins.objectives.trades import trades

SHAPE = (1, 3, 4)
EPS = {"linf": 0.05, "l2": 0.2, "l1": 0.3}
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}
norms = pytest.mark.parametrize("norm", EPS)


def linear(classes: int = 2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, classes)).double()


def images(n: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Grey enough that the box is out of reach."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.4 + 0.2 * torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64)
    return x, torch.randint(2, (n,), generator=generator)


def at(step: int = 0, n: int = 9, **settings: Any) -> Step:
    return Step(
        Draws(7, torch.arange(n)),
        0,
        settings.get("progress", 1.0),
        {},
        step,
        1000,
        settings.get("carried", {}),
    )


def worst_loss(net: nn.Sequential, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """softplus(-(margin - ε‖w₀ - w₁‖)) in the dual norm, mean over images."""
    direction = net[1].weight[0] - net[1].weight[1]
    logits = net(x)
    margin = (logits[:, 0] - logits[:, 1]) * (1 - 2 * y)
    return F.softplus(EPS[norm] * torch.linalg.vector_norm(direction, DUAL[norm]) - margin).mean()


@norms
@pytest.mark.parametrize(
    "attack", ["fgsm", {"pgd": {"steps": 30, "relative_step": 0.5}}], ids=["fgsm", "pgd"]
)
def test_adversarial_loss_and_gradient_are_the_closed_form(norm: str, attack: Any) -> None:
    net, (x, y) = linear(), images()
    found = registry.resolve(
        "objectives", {"adversarial": {"norm": norm, "eps": EPS[norm], "attack": attack}}
    )(model=net, x=x, y=y, step=at())
    expected = worst_loss(net, x, y, norm)
    assert float(found.detach()) == pytest.approx(
        float(expected.detach()), rel=1e-3 if norm == "l1" and attack != "fgsm" else 1e-9
    )
    if norm != "l1":  # there the dual norm takes the largest entry alone, in which a small step apart tells
        ours, theirs = (torch.autograd.grad(loss, net[1].weight)[0] for loss in (found, expected))
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_free_comes_near_the_closed_form_in_l1_showing_by_showing() -> None:
    """Its step is along the whole gradient, not in one pixel, so it takes some showings."""
    net, (x, y) = linear(), images()
    carried: dict[str, Tensor] = {}
    objective = registry.resolve("objectives", {"free": {"norm": "l1", "eps": EPS["l1"]}})
    losses = []
    for showing in range(10):
        loss = objective(model=net, x=x, y=y, step=at(showing, carried=carried))
        loss.backward()
        losses.append(float(loss.detach()))
    best = float(worst_loss(net, x, y, "l1").detach())
    assert losses == sorted(losses)
    assert losses[1] - losses[0] > 0.8 * (best - losses[0])
    assert 0.98 * (best - losses[0]) < losses[-1] - losses[0] <= best - losses[0] + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_free_reaches_the_closed_form_at_the_second_showing(norm: str) -> None:
    net, (x, y) = linear(), images()
    carried: dict[str, Tensor] = {}
    objective = registry.resolve("objectives", {"free": {"norm": norm, "eps": EPS[norm]}})
    losses = []
    for showing in range(3):
        loss = objective(model=net, x=x, y=y, step=at(showing, carried=carried))
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(float(F.cross_entropy(net(x), y).detach()))
    assert losses[1] == losses[2] == pytest.approx(float(worst_loss(net, x, y, norm).detach()))
    assert Ball(norm, EPS[norm]).holds(x + carried["perturbation"], x).all()  # type: ignore[arg-type]


def test_free_carries_its_perturbation_place_by_place_through_a_smaller_batch() -> None:
    net, carried = linear(), {}
    objective = registry.resolve("objectives", {"free": {"eps": 0.05}})
    (x, y), (few, of_few) = images(), images(4, seed=1)
    objective(model=net, x=x, y=y, step=at(carried=carried)).backward()
    before = carried["perturbation"].clone()
    loss = objective(model=net, x=few, y=of_few, step=at(1, 4, carried=carried))
    assert float(loss.detach()) == pytest.approx(
        float(F.cross_entropy(net(few + before[:4]), of_few).detach())
    )
    loss.backward()
    assert len(carried["perturbation"]) == 9
    assert carried["perturbation"][4:].equal(before[4:])
    assert not carried["perturbation"][:4].equal(before[:4])


@norms
def test_trades_is_its_equation_at_one_end_of_the_ball(norm: str) -> None:
    net = linear()
    direction = net[1].weight[0] - net[1].weight[1]
    reach = EPS[norm] * torch.linalg.vector_norm(direction, DUAL[norm])
    options = {"norm": norm, "eps": EPS[norm], "beta": 4.0, "steps": 40, "relative_step": 0.25}
    for seed in range(5):
        x, y = images(1, seed)
        logits = net(x)
        z = logits[:, 0] - logits[:, 1]
        ends = []
        for moved in (z - reach, z + reach):
            p, q = torch.sigmoid(z), torch.sigmoid(moved)
            kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
            ends.append(float((F.cross_entropy(logits, y) + 4 * kl).detach()))
        found = registry.resolve("objectives", {"trades": options})(model=net, x=x, y=y, step=at(n=1))
        assert min(abs(float(found.detach()) - end) for end in ends) < (
            1e-9 if norm != "l1" else 1e-3 * max(ends)
        )


def test_trades_without_beta_is_the_plain_loss() -> None:
    net, (x, y) = linear(3), images()
    found = registry.resolve("objectives", {"trades": {"beta": 0.0}})(model=net, x=x, y=y, step=at())
    assert float(found.detach()) == float(F.cross_entropy(net(x), y).detach())


class Spy:
    """An attack that paints images black and remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws, **others: Any
    ) -> Tensor:
        asked = any(p.requires_grad for p in model.parameters())
        self.calls.append(
            {
                "n": len(x),
                "y": y,
                "eps": ball.eps,
                "target": others["target"],
                "training": model.training,
                "asked": asked,
            }
        )
        self.calls[-1]["draws"] = draws.uniform(2)
        return torch.zeros_like(x)


class Recorder(nn.Module):
    """A linear model that keeps the batches it was trained on."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.net, self.norm, self.seen = linear(classes), nn.BatchNorm2d(1).double(), []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.detach())
        return self.net(self.norm(x))  # type: ignore[no-any-return]


def attacked_rows(share: float, chance: float, step: int, n: int = 10) -> list[int]:
    model, spy, (x, y) = Recorder(), Spy(), images(n)
    adversarial(model, x, y, at(step, n), attack=spy, share=share, chance=chance, loss=cross_entropy)
    (seen,) = model.seen
    black = ~seen.flatten(1).any(1)
    assert seen[~black].equal(x[~black])
    return black.nonzero().flatten().tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("share", [0.0, 0.26, 0.5, 1.0])
def test_a_share_of_each_batch_is_attacked_the_same_whenever_asked(share: float) -> None:
    rows = attacked_rows(share, 1.0, 5)
    assert len(rows) == round(10 * share)
    assert rows == attacked_rows(share, 1.0, 5)


@pytest.mark.slow
def test_whole_batches_are_attacked_with_their_chance() -> None:
    found = [len(attacked_rows(1.0, 0.2, step, 2)) for step in range(400)]
    assert set(found) == {0, 2}
    assert 50 < sum(found) / 2 < 110  # 80 expected; 5 deviations are 40
    assert found[:40] == [len(attacked_rows(1.0, 0.2, step, 2)) for step in range(40)]


def test_the_radius_grows_over_the_ramp_and_nothing_is_attacked_at_its_start() -> None:
    radii = []
    for progress in (0.0, 0.1, 0.2, 0.4, 0.9):
        spy, (x, y) = Spy(), images()
        adversarial(
            Recorder(), x, y, at(progress=progress), attack=spy, eps=0.3, ramp=0.4, loss=cross_entropy
        )
        radii.append(spy.calls[0]["eps"] if spy.calls else None)
    assert radii == [None, *(pytest.approx(eps) for eps in (0.075, 0.15, 0.3, 0.3))]


def test_targets_are_another_class_than_the_images_own() -> None:
    x, y = images(50)
    for rule in ("least_likely", "random", 2):
        spy = Spy()
        adversarial(Recorder(4), x, y, at(n=50), attack=spy, target=rule, loss=cross_entropy)  # type: ignore[arg-type]
        target = spy.calls[0]["target"]
        assert (target != y).all() or rule == 2
        if rule == "least_likely":
            before = Recorder(4).eval()
            assert target.equal(before(x).detach().scatter(1, y[:, None], torch.inf).argmin(1))
        if rule == "random":
            assert len(target.unique()) == 4


@pytest.mark.parametrize("objective", [adversarial, free, trades])
def test_the_search_is_in_evaluation_mode_and_leaves_the_statistics_alone(objective: Any) -> None:
    model, (x, y) = Recorder(), images()
    spy = Spy()
    options = {"attack": spy} if objective is adversarial else {}
    objective(model, x, y, at(), loss=cross_entropy, **options)
    assert int(model.norm.num_batches_tracked) == (2 if objective is trades else 1)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert [(call["training"], call["asked"]) for call in spy.calls] == [(False, False)] * len(spy.calls)


@pytest.mark.parametrize("name", ["adversarial", "free", "trades"])
def test_mixed_labels_of_one_class_are_that_label(name: str) -> None:
    x, y = images()
    soft = F.one_hot(y, 3).double()
    losses = [
        registry.resolve("objectives", name)(model=linear(3), x=x, y=label, step=at()) for label in (y, soft)
    ]
    assert float(losses[0].detach()) == pytest.approx(float(losses[1].detach()))


def test_draws_are_other_ones_for_every_showing_and_the_same_when_asked_again() -> None:
    seen = []
    for seed in (7, 7, 8):
        spy, (x, y) = Spy(), images()
        step = Step(Draws(seed, torch.arange(9)), 0, 1.0, {}, 0, 1000)
        adversarial(Recorder(), x, y, step, attack=spy, loss=cross_entropy)
        seen.append(spy.calls[0]["draws"])
    assert seen[0].equal(seen[1])
    assert not seen[0].equal(seen[2])


@pytest.mark.parametrize(("batch", "batches"), [(0, 1), (0, 2), (8, 10)])
@pytest.mark.parametrize("name", ["adversarial", "free"])
def test_the_guard_looks_once_an_epoch_at_the_same_images(name: str, batch: int, batches: int) -> None:
    x, y = images()
    for place in range(batches):
        state: dict[str, Tensor] = {}
        step = Step(Draws(0, torch.arange(9)), 3, 0.5, state, place, batches)
        registry.resolve("objectives", {name: {"eps": 0.2}})(model=linear(), x=x, y=y, step=step)
        figures = reported(state)
        assert bool(figures) == (place == batch)
        if figures:
            assert figures["guarded"] == 9
            assert figures["guard_accuracy"] * 9 == pytest.approx(round(figures["guard_accuracy"] * 9))
    if name == "adversarial":  # PGD-7 on a linear model finds what PGD-5 finds
        assert figures == {} or figures["attack_accuracy"] == figures["guard_accuracy"]


def test_noisy_images_have_their_deviation_and_leave_the_box() -> None:
    model, (x, y) = Recorder(), images(400)
    registry.resolve("objectives", {"noisy": {"sigma": 0.5}})(model=model, x=x, y=y, step=at(n=400))
    added = model.seen[0] - x
    assert float(added.std()) == pytest.approx(0.5, rel=0.05)
    assert abs(float(added.mean())) < 0.03
    assert float(model.seen[0].min()) < 0


@pytest.mark.parametrize("wrong", ["8/0", -0.1, "much", [0.1]], ids=str)
@pytest.mark.parametrize("name", ["adversarial", "free", "trades"])
def test_a_radius_that_cannot_be_is_refused_where_it_is_written(name: str, wrong: Any) -> None:
    with pytest.raises(Problems, match=f"{name}.eps: "):
        registry.resolve("objectives", {name: {"eps": wrong}})


@pytest.mark.parametrize("name", ["adversarial", "free", "trades"])
def test_fractions_are_radii_and_grey_levels_are_not(name: str) -> None:
    assert registry.resolve("objectives", {name: {"eps": "8/255"}}).options["eps"] == 8 / 255
    x, y = images()
    with pytest.raises(ConfigError, match="did you mean 8/255"):
        registry.resolve("objectives", {name: {"eps": 8}})(model=linear(), x=x, y=y, step=at())
