"""Small models of the digits, trained in a moment and attacked soundly, and everything audits can
be given about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.registry import Bound, bind, resolve
from stresslens.config.registry import names as names_of
from stresslens.core.attack_base import BatchedModel, attacked
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws
from stresslens.core.evidence import CLEAN, Curve, Row, Trace
from stresslens.core.layers import Normalize
from stresslens.core.types import Finding
from stresslens.plugins.datasets.digits import digits
from stresslens.robustness.attack_batch import AttackBatch, batched_logits, verdict_model
from stresslens.robustness.audit import ExtraAttackProbe, audit

FAST = ("fgsm", {"pgd": {"steps": 20}}, {"apgd": {"loss": "ce", "steps": 20}}, {"apgd": {"steps": 20}})
FAST_L1 = ({"apgd": {"loss": "ce", "steps": 30}}, {"apgd": {"steps": 30}})
"""In l1 a step of FGSM or PGD moves one pixel, so neither gets far."""
RADII = {"linf": (0.02, 0.05, 0.1, 0.2), "l2": (0.1, 0.3, 0.6, 1.2), "l1": (0.3, 1.0, 2.0, 4.0)}
Images = tuple[Tensor, Tensor]


@cache
def images(classes: int = 10) -> tuple[Images, Images]:
    """The first classes of the digits: images (n, 1, 8, 8) in [0, 1] and labels, to train on and to
    test on."""
    data = digits()
    found = []
    for split in (data.train, data.test):
        assert split is not None
        keep = split.labels < classes
        found.append((split.images[keep].float() / split.scale, split.labels[keep]))
    return found[0], found[1]


def mlp(
    classes: int, width: int = 64, act: Callable[[], nn.Module] = nn.ReLU, dropout: float = 0.0
) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, width),
        act(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        act(),
        nn.Linear(width, classes),
    )


def cnn(
    classes: int, norm: Callable[[], nn.Module] = nn.Identity, act: Callable[[], nn.Module] = nn.ReLU
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        norm(),
        act(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 32),
        act(),
        nn.Linear(32, classes),
    )


def trained(
    net: nn.Module,
    data: Images,
    *,
    steps: int = 150,
    lr: float = 0.01,
    decay: float = 0.0,
    smoothing: float = 0.0,
    hardened: tuple[Norm, float] | None = None,
    noise: float = 0.0,
) -> nn.Module:
    """Adam on batches of 256; `hardened` by PGD of 5 steps (Madry et al. 2018), written out. Left
    in evaluation mode."""
    x, y = data
    optimizer = torch.optim.Adam(net.parameters(), lr, weight_decay=decay)
    net.train()
    for _ in range(steps):
        batch = torch.randint(len(x), (256,))
        a, b = x[batch], y[batch]
        if noise:
            a = (a + noise * torch.randn_like(a)).clamp(0, 1)
        if hardened is not None:
            ball, z = Ball(*hardened), a.clone()
            for _ in range(5):
                point = z.clone().requires_grad_()
                grad = torch.autograd.grad(F.cross_entropy(net(point), b), point)[0]
                z = ball.project(z + 0.5 * hardened[1] * ball.steepest(grad), a)
            a = z
        optimizer.zero_grad()
        F.cross_entropy(net(a), b, label_smoothing=smoothing).backward()
        optimizer.step()
    for parameter in net.parameters():
        parameter.grad = None
    return net.eval()


@dataclass(frozen=True)
class Scene:
    """What is attacked, and how."""

    model: nn.Module
    images: Images
    norm: Norm = "linf"
    radii: tuple[float, ...] = RADII["linf"]
    protocol: Sequence[Any] = FAST
    reported: float | None = None
    asked: int | None = None
    surrogate: nn.Module | None = None

    def but(self, **changes: Any) -> Scene:
        return replace(self, **changes)


def bound(attack: Any) -> Bound:
    """An attack by name and options, or a function of this test."""
    if not callable(attack) or isinstance(attack, Bound):
        return attack if isinstance(attack, Bound) else resolve("attacks", attack)
    return bind("attacks", attack, {})


def attempts(
    scene: Scene, attacks: Sequence[Bound], eps: float, right: Tensor
) -> tuple[list[Tensor], list[Trace]]:
    """The attacks one after the other at one radius, each on what the ones before left: what is
    broken after each, and what each showed."""
    x, y = scene.images
    draws = Draws(0, torch.arange(len(x)))
    broken, traces = [], []
    with attacked(scene.model):
        search = AttackBatch(verdict_model(scene.model), x, y, Ball(scene.norm, eps))
        search.is_adversarial |= ~right
        for attack in attacks:
            name = attack.function.__name__
            trace, _ = search.attack_unbroken(
                attack, BatchedModel(scene.model), draws, name=name, surrogate=scene.surrogate
            )
            broken.append(search.is_adversarial.clone())
            traces.append(trace)
    return broken, traces


def examined(scene: Scene, only: Iterable[str] | None = None) -> list[Finding]:
    """The protocol at every radius, and every audit, or those named, on what it left."""
    x, y = scene.images
    n, protocol = len(x), [bound(attack) for attack in scene.protocol]
    names = tuple(attack.function.__name__ for attack in protocol)
    with attacked(scene.model):
        right = batched_logits(verdict_model(scene.model), x).argmax(1) == y
    smallest, by = np.where(right, np.inf, 0.0), np.full(n, -1)
    traces: list[Trace] = []
    table = [Row("model", CLEAN, 0.0, float(right.float().mean()), n, scene.norm)]
    for eps in scene.radii:
        broken, found = attempts(scene, protocol, eps, right)
        traces += found
        for place, after in enumerate(broken):
            fresh = after.numpy() & np.isinf(smallest)
            smallest[fresh], by[fresh] = eps, place
        for place, attack in enumerate(protocol):
            (alone,), _ = attempts(scene, [attack], eps, right) if place else ([broken[0]], [])
            accuracy, steps = 1 - float(alone.float().mean()), attack.options.get("steps")
            table.append(
                Row("model", f"{names[place]} {chr(97 + place)}", eps, accuracy, n, scene.norm, steps)
            )
    curve = Curve(scene.norm, scene.radii, smallest, by, names, scene.asked or n, scene.reported)
    probe = ExtraAttackProbe(scene.model, x, y, scene.norm, scene.radii, protocol, surrogate=scene.surrogate)
    return audit(
        table,
        curve,
        traces,
        scene.model,
        scene.images,
        probe,
        only=names_of("audits") if only is None else sorted(only),
    )


@contextmanager
def only_audits(*names: str) -> Iterator[None]:
    """Whatever audits a result carries out these alone: the others would take most of the time."""
    all_names = registry.all_names

    def named(folder: str) -> list[str]:
        return [name.replace(" ", "_") for name in names] if folder == "audits" else all_names(folder)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "all_names", named)
        yield


def signs(found: Sequence[Finding], severity: str | None = None) -> set[str]:
    return {
        finding.audit
        for finding in found
        if finding.status == "sign" and severity in (None, finding.severity)
    }


def normalised(net: nn.Module, data: Images) -> nn.Module:
    x = data[0]
    return nn.Sequential(Normalize.by_moments([float(x.mean())], [float(x.std())]), net)


def linear(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


SOUND: tuple[tuple[str, int, Norm, Callable[[int], nn.Module], dict[str, Any]], ...] = (
    ("linear", 10, "linf", linear, {}),
    ("linear of two classes", 2, "l2", linear, {}),
    ("linear of three classes", 3, "l1", linear, {}),
    ("mlp", 10, "linf", mlp, {}),
    ("mlp in l2", 10, "l2", mlp, {}),
    ("mlp trained long", 10, "linf", mlp, {"steps": 600}),
    ("mlp hardly trained", 10, "linf", mlp, {"steps": 25}),
    ("narrow mlp of five classes", 5, "linf", lambda k: mlp(k, 12), {}),
    ("tanh", 10, "l2", lambda k: mlp(k, 32, nn.Tanh), {}),
    ("gelu and dropout", 10, "linf", lambda k: mlp(k, 64, nn.GELU, 0.3), {}),
    ("sigmoid of three classes", 3, "linf", lambda k: mlp(k, 32, nn.Sigmoid), {}),
    ("smoothed labels", 10, "linf", mlp, {"smoothing": 0.1}),
    ("weight decay of two classes", 2, "linf", mlp, {"decay": 1e-3}),
    ("cnn", 10, "linf", cnn, {}),
    ("cnn with batch norm", 10, "l2", lambda k: cnn(k, lambda: nn.BatchNorm2d(16)), {}),
    ("cnn with group norm", 5, "linf", lambda k: cnn(k, lambda: nn.GroupNorm(4, 16), nn.SiLU), {}),
    ("mlp hardened in linf", 10, "linf", mlp, {"hardened": ("linf", 0.1), "steps": 120}),
    ("cnn hardened in l2", 10, "l2", cnn, {"hardened": ("l2", 0.6), "steps": 120}),
    ("cnn hardened, of two classes", 2, "linf", cnn, {"hardened": ("linf", 0.15), "steps": 100}),
    ("mlp trained on noise", 10, "l1", mlp, {"noise": 0.2}),
)


def sound_scene(place: int, seed: int, most: int = 128) -> Scene:
    """The model at this place of SOUND, trained from this seed, normalised every other time."""
    _, classes, norm, build, options = SOUND[place]
    torch.manual_seed(1000 * seed + place)
    train, (x, y) = images(classes)
    net = build(classes)
    model = trained(normalised(net, train) if (place + seed) % 2 else net, train, **options)
    x, y = x[:most], y[:most]
    with torch.no_grad():
        reported = float((model(x).argmax(1) == y).float().mean())
    return Scene(model, (x, y), norm, RADII[norm], FAST_L1 if norm == "l1" else FAST, reported=reported)
