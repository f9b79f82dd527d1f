"""Faults planted one at a time in an otherwise sound attack on a real, trained model: each is seen,
by an audit made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sound import FAST, RADII, Scene, cnn, examined, images, mlp, normalised, signs, trained
from torch import Tensor, nn

from stresslens.core.ball import Ball
from stresslens.core.draws import Draws

MEAN, STD = 0.31, 0.38
PGD = {"pgd": {"steps": 40}}


@cache
def net(kind: str = "mlp", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    data, _ = images()
    build = {
        "mlp": lambda: mlp(10),
        "dropout": lambda: mlp(10, dropout=0.4),
        "bn": lambda: cnn(10, lambda: nn.BatchNorm2d(16)),
    }[kind]
    return trained(normalised(build(), data), data, steps=120)


def scene(model: nn.Module | None = None, **changes: Any) -> Scene:
    _, (x, y) = images()
    return Scene(net() if model is None else model, (x[:128], y[:128])).but(**changes)


# Models that get in the way


class Around(nn.Module):
    """A trained net behind or before something."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net(), before, after
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.net(self.before(x)))


class AlwaysTraining(Around):
    """Its eval() does nothing: dropout goes on."""

    def __init__(self, kind: str = "dropout") -> None:
        super().__init__()
        self.net = net(kind)
        nn.Module.train(self, True)

    def train(self, mode: bool = True) -> AlwaysTraining:
        return self

    def eval(self) -> AlwaysTraining:
        return self


class FunctionalDropout(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(F.dropout(x, 0.2, training=True))


class BatchStatistics(Around):
    """Normalised by the mean and deviation of the batch that an image happens to stand in."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - x.mean()) / x.std() * STD + MEAN)


class Adapts(Around):
    """Moves each image down its own entropy before it answers."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            logits = self.net(z)
            entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum()
            grad = torch.autograd.grad(entropy, z)[0]
        return self.net((x - 0.05 * grad.sign()).clamp(0, 1))


class Remembers(Around):
    """Answers an image near one that it has seen as it did then."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        for before, answers in self.seen:
            near = torch.cdist(x.flatten(1), before.flatten(1))
            close, place = near.min(1)
            logits = torch.where((close < 0.6)[:, None], answers[place], logits)
        self.seen = [*self.seen[-5:], (x.detach().clone(), logits.detach().clone())]
        return logits


class WrongBackward(torch.autograd.Function):
    """An operator whose backward pass has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


def resized(x: Tensor) -> Tensor:
    """Shrunk to a random size and padded at a random place, the same for a batch (Xie et al. 2018)."""
    size = int(torch.randint(6, 9, (1,)))
    left, top = (int(torch.randint(0, 9 - size, (1,))) for _ in range(2))
    small = F.interpolate(x, size, mode="bilinear", align_corners=False)
    return F.pad(small, (left, 8 - size - left, top, 8 - size - top))


MODELS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "a softmax inside": (lambda: Around(after=lambda z: z.softmax(1)), {"probabilities"}),
    "an argmax inside": (
        lambda: Around(after=lambda z: F.one_hot(z.argmax(1), 10).float()),
        {"probabilities", "gradient exists", "zero gradients"},
    ),
    "logits times 1000": (lambda: Around(after=lambda z: 1000 * z), {"saturated loss", "zero gradients"}),
    "temperature of 1e-3": (lambda: Around(after=lambda z: z / 1e-3), {"saturated loss"}),
    "quantised input": (
        lambda: Around(lambda x: (x * 16).round() / 16),
        {"gradient exists", "staircase", "zero gradients", "square wins", "noise wins"},
    ),
    "thresholded input": (lambda: Around(lambda x: (x > 0.53).float()), {"gradient exists", "staircase"}),
    "rounding straight through": (
        lambda: Around(lambda x: x + ((x * 16).round() / 16 - x).detach()),
        {"staircase"},
    ),
    "through numpy": (
        lambda: Around(lambda x: torch.from_numpy(x.detach().numpy().copy())),
        {"gradient exists"},
    ),
    "detached": (lambda: Around(lambda x: x.detach()), {"gradient exists", "zero gradients"}),
    "a backward pass of the wrong sign": (lambda: Around(WrongBackward.apply), {"gradient is slope"}),
    "random resizing": (lambda: Around(resized), {"deterministic"}),
    "noise on the input": (lambda: Around(lambda x: x + 0.1 * torch.randn_like(x)), {"deterministic"}),
    "dropout in the forward pass": (FunctionalDropout, {"deterministic"}),
    "eval() that does nothing": (AlwaysTraining, {"evaluation mode", "deterministic"}),
    "eval() that leaves batch statistics": (lambda: AlwaysTraining("bn"), {"evaluation mode", "neighbours"}),
    "images normalised by their batch": (BatchStatistics, {"neighbours"}),
    "test-time adaptation": (Adapts, {"gradient in forward"}),
    "a memory of what was seen": (Remembers, {"remembers"}),
}


SLOW = (
    *("eval() that leaves batch statistics", "a memory of what was seen", "test-time adaptation"),
    *("quantised input", "images left out", "other weights than the record's", "logits times 1000"),
    *("labels from predictions, no record", "a backward pass of the wrong sign", "temperature of 1e-3"),
)


def some_slow(faults: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in faults]


@pytest.mark.breadth(1)
@pytest.mark.parametrize("fault", some_slow(MODELS))
def test_a_model_that_gets_in_the_way_is_seen(fault: str) -> None:
    build, expected = MODELS[fault]
    found = signs(examined(scene(build(), radii=(0.1,), protocol=("fgsm", PGD)), expected))
    assert expected <= found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dropout", "bn"])
def test_a_model_left_in_training_mode_is_seen(kind: str) -> None:
    model = net(kind).train()
    try:
        attacked = scene(model, radii=(0.1,), protocol=("fgsm", PGD))
        assert "evaluation mode" in signs(examined(attacked, ["evaluation mode"]), "serious")
        assert model.training
    finally:
        model.eval()


# Attacks that go wrong


def climbed(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    *,
    steps: int = 20,
    step: float = 0.125,
    start: Callable[[Tensor], Tensor] = lambda x: x,
    move: Callable[[Tensor, Ball], Tensor] = lambda grad, ball: ball.steepest(grad),
    sign: float = 1.0,
    reach: float = 1.0,
    clamp: bool = True,
) -> Tensor:
    """PGD written out once more, with a place to go wrong at each step; `step` and `reach` in radii."""
    wide = Ball(ball.norm, ball.radius(x).flatten() * reach)
    z = start(x)
    for _ in range(steps):
        point = z.clone().requires_grad_()
        grad = torch.autograd.grad(F.cross_entropy(model(point), y), point, allow_unused=True)[0]
        assert grad is not None
        z = z + sign * step * reach * ball.radius(x) * move(grad, ball)
        z = wide.project(z, x) if clamp else x + (z - x).clamp(-wide.radius(x), wide.radius(x))
    return z.detach()


def stores_the_image(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """Lab C's: the perturbation is clamped, then clip(x + δ) is stored in its place, so clip(2x +
    δ) is scored."""
    delta, radius = torch.zeros_like(x), ball.radius(x)
    for _ in range(20):
        point = delta.clone().requires_grad_()
        grad = torch.autograd.grad(F.cross_entropy(model(x + point), y), point)[0]
        delta = (delta + 0.2 * radius * grad.sign()).clamp(-radius, radius)
        delta = (x + delta).clamp(0, 1)
    return (x + delta).clamp(0, 1)


def over_std(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return climbed(model, x, y, ball, draws, reach=1 / STD)


def pgd_times_std(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return climbed(model, x, y, ball, draws, reach=STD)


def no_clamp(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return climbed(model, x, y, ball, draws, clamp=False)


def two_steps(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return climbed(model, x, y, ball, draws, steps=2)


def downhill(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return climbed(model, x, y, ball, draws, sign=-1.0)


def wrong_labels(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return climbed(model, x, (y + 3) % 10, ball, draws)


def other_model(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return climbed(net("mlp", 1), x, y, ball, draws)


def mean_gradient(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """In l2: the gradient of the batch's mean loss is scaled by the length of the whole batch's."""
    return climbed(model, x, y, ball, draws, move=lambda grad, ball: grad / grad.norm().clamp_min(1e-12))


def raw_gradient(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The gradient itself, neither its sign nor its direction."""
    return climbed(model, x, y, ball, draws, move=lambda grad, ball: grad)


def noise_only(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """An "attack" that returns its random start."""
    return ball.sample(x, draws)


def last_restart(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Restarts of which the last one is returned, though it begins far from the others and takes one step."""
    for steps in (20, 20, 1):
        z = climbed(model, x, y, ball, draws, steps=steps)
        model(z)
    return z


def last_iterate(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Ends with one step down again."""
    z = climbed(model, x, y, ball, draws)
    model(z)
    return ball.project(0.3 * z + 0.7 * x, x)


def turns_training_on(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    z = climbed(model, x, y, ball, draws)
    model.train()
    return z


def asks_for_parameters(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    model.requires_grad_(True)
    point = x.clone().requires_grad_()
    F.cross_entropy(model(point), y).backward()
    return climbed(model, x, y, ball, draws)


def one_batch_is_forgotten(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Returns the last partial batch of 64 as it was."""
    z = climbed(model, x, y, ball, draws)
    whole = len(x) // 64 * 64
    return torch.cat([z[:whole], x[whole:]])


def of_eight_bits_truncated(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Rounded towards the original by saving in few levels."""
    return x + ((climbed(model, x, y, ball, draws) - x) * 16).trunc() / 16


ATTACKS: dict[str, tuple[Callable[[], Scene], set[str]]] = {
    "the image kept as the perturbation": (
        lambda: scene(protocol=(stores_the_image,)),
        {"outside the ball", "reference wins"},
    ),
    "radius over std": (lambda: scene(protocol=("fgsm", over_std)), {"outside the ball"}),
    "radius times std": (lambda: scene(protocol=(pgd_times_std,)), {"unused radius"}),
    "no clamp": (lambda: scene(protocol=(no_clamp,)), {"outside the ball"}),
    "too few steps": (
        lambda: scene(protocol=({"pgd": {"steps": 2, "relative_step": 0.125}},)),
        {"short steps", "doubled steps"},
    ),
    "steps that cannot cross the ball": (
        lambda: scene(protocol=({"pgd": {"steps": 10, "step_size": 0.002}},)),
        {"short steps", "doubled steps", "reference wins"},
    ),
    "two steps of one's own": (lambda: scene(protocol=(two_steps,)), {"reference wins"}),
    "down the loss": (lambda: scene(protocol=(downhill,)), {"reference wins", "unbounded", "half range"}),
    "wrong labels": (lambda: scene(protocol=(wrong_labels,)), {"reference wins"}),
    "another model's gradients": (lambda: scene(protocol=(other_model,)), {"reference wins"}),
    "gradients scaled by the batch": (
        lambda: scene(protocol=(mean_gradient,), norm="l2", radii=RADII["l2"]),
        {"reference wins"},
    ),
    "gradients as they are": (lambda: scene(protocol=(raw_gradient,)), {"reference wins"}),
    "a random start alone": (lambda: scene(protocol=(noise_only,)), {"reference wins", "unbounded"}),
    "the last restart": (lambda: scene(protocol=(last_restart,)), {"silent success"}),
    "the last iterate": (lambda: scene(protocol=(last_iterate,)), {"silent success"}),
    "mode not put back": (lambda: scene(net("dropout"), protocol=(turns_training_on,)), {"leaves marks"}),
    "gradients in the parameters": (lambda: scene(protocol=(asks_for_parameters,)), {"leaves marks"}),
    "a batch left unattacked": (lambda: scene(protocol=(one_batch_is_forgotten,)), {"silent success"}),
    "truncated to few levels": (lambda: scene(protocol=(of_eight_bits_truncated,)), {"silent success"}),
    "images left out": (lambda: scene(asked=144), {"dropped images"}),
    "labels from predictions": (lambda: own_labels(0.955), {"clean accuracy"}),
    "labels from predictions, no record": (lambda: own_labels(None), {"perfect when clean"}),
    "other weights than the record's": (lambda: scene(net("mlp", 2), reported=0.99), {"clean accuracy"}),
    "images in 0 to 255": (lambda: scaled(255.0), {"input range"}),
    "images normalised": (lambda: scaled(1 / STD, -MEAN), {"input range"}),
    "images divided twice": (lambda: scaled(1 / 255), {"input range"}),
    "noise for an attack": (lambda: scene(protocol=("noise",)), {"one attack", "reference wins"}),
    "a single step for an attack": (lambda: scene(protocol=("fgsm",)), {"one attack"}),
}


def own_labels(reported: float | None) -> Scene:
    made = scene(reported=reported)
    x, _ = made.images
    with torch.no_grad():
        return made.but(images=(x, made.model(x).argmax(1)))


def scaled(factor: float, shift: float = 0.0) -> Scene:
    made = scene(protocol=("fgsm",))
    return made.but(images=((made.images[0] + shift) * factor, made.images[1]))


@pytest.mark.breadth(4)
@pytest.mark.parametrize("fault", some_slow(ATTACKS))
def test_an_attack_that_goes_wrong_is_seen(fault: str) -> None:
    build, expected = ATTACKS[fault]
    made = build()
    found = signs(examined(made.but(radii=made.radii[1:3]), expected))
    assert expected <= found, found


@pytest.mark.slow
def test_nothing_is_seen_without_a_fault() -> None:
    assert not signs(examined(scene(protocol=FAST, surrogate=net("mlp", 1))))
