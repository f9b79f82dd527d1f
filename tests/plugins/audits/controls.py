"""Sound controls drawn at random: small networks of many kinds on small images of many shapes, in
three norms and four precisions, attacked soundly through `sl.attack`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.attack_base import margins
from stresslens.core.ball import Norm
from stresslens.robustness.result import AttackResult

PRECISIONS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
TESTED = 48


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(2, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Patches(nn.Module):
    """A small vision transformer without a class token: the mean of its tokens is classified."""

    def __init__(self, shape: tuple[int, int, int], classes: int, side: int) -> None:
        super().__init__()
        tokens = (shape[1] // side) * (shape[2] // side)
        self.embed = nn.Conv2d(shape[0], 16, side, side)
        self.position = nn.Parameter(0.1 * torch.randn(1, tokens, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, 0.1, "gelu", batch_first=True, norm_first=True)
        self.head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.block(tokens).mean(1))


class Centred(nn.Module):
    """Normalisation as the first layer."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


def _mlp(*acts: Callable[[], nn.Module]) -> Callable[[tuple[int, int, int], int], nn.Module]:
    return lambda shape, classes: nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 32),
        *(act() for act in acts),
        nn.Dropout(0.1),
        nn.Linear(32, classes),
    )


def _cnn(
    norm: Callable[[int], nn.Module], pool: nn.Module
) -> Callable[[tuple[int, int, int], int], nn.Module]:
    return lambda shape, classes: nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, padding=1),
        norm(8),
        nn.ReLU(),
        pool,
        nn.Conv2d(8, 12, 3, padding=1),
        norm(12),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, classes),
    )


ARCHITECTURES: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "linear": lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes)),
    "mlp": _mlp(nn.ReLU),
    "tanh mlp": _mlp(lambda: nn.LayerNorm(32), nn.Tanh),
    "gelu mlp": _mlp(nn.GELU),
    "cnn": _cnn(lambda width: nn.Identity(), nn.Identity()),
    "cnn with batch norm": _cnn(nn.BatchNorm2d, nn.AvgPool2d(2)),
    "max-pool net": _cnn(lambda width: nn.Identity(), nn.MaxPool2d(2)),
    "residual net": lambda shape, classes: nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, padding=1, stride=2),
        Residual(8),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    ),
    "vit": lambda shape, classes: Patches(shape, classes, max(2, min(shape[1:]) // 4)),
}
PROTOCOLS: tuple[Any, ...] = (
    "fast",
    "fast",
    "fast",
    ["fgsm", {"pgd": {"steps": 40}}, {"apgd": {"steps": 40}}],
)


@dataclass(frozen=True)
class Control:
    """A trained model, images that it classifies, and how they are attacked."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    norm: Norm
    radii: tuple[float, ...]
    protocol: Any = field(default="fast")

    def attacked(self, protocol: Any = None) -> AttackResult:
        protocol = self.protocol if protocol is None else protocol
        return sl.attack(
            self.model, self.x, self.y, radii=list(self.radii), norm=self.norm, protocol=protocol
        )


def control(seed: int, **fixed: Any) -> Control:
    """The control of this seed; `fixed` chooses the architecture, the classes, the shape, the norm,
    the precision, the order or the number of images."""
    chance = random.Random(seed)
    architecture = chance.choice(list(ARCHITECTURES))
    classes, shape = chance.randint(2, 20), (chance.randint(1, 4), _side(chance), _side(chance))
    norm, precision = chance.choice(NORMS), chance.choice(PRECISIONS)
    protocol, order = chance.choice(PROTOCOLS), chance.choice(("sorted", "shuffled"))
    spread, steps = chance.uniform(0.15, 0.4), chance.choice((100, 200))
    architecture, classes = fixed.get("architecture", architecture), fixed.get("classes", classes)
    shape, norm = fixed.get("shape", shape), fixed.get("norm", norm)
    precision, order = fixed.get("precision", precision), fixed.get("order", order)
    torch.manual_seed(seed)
    templates = _templates(classes, shape)
    x, y = _images(templates, 400, spread)
    net = nn.Sequential(Centred(), ARCHITECTURES[architecture](shape, classes))
    _train(net, x, y, steps)
    x, y = _images(templates, fixed.get("images", TESTED), spread)
    if order == "sorted":
        place = y.argsort(stable=True)
        x, y = x[place], y[place]
    radius = _typical_radius(net, x, y, norm)
    name = f"{architecture}, {classes} classes, {'×'.join(map(str, shape))}, {norm}, {str(precision)[6:]}"
    pixels = math.prod(shape)
    radius = min(radius, 0.4 * {"linf": 1.0, "l2": math.sqrt(pixels), "l1": pixels}[norm])
    radii = tuple(round(k * radius, 5) for k in (0.3, 1, 2))
    return Control(f"{name}, {order}", net.to(precision), x, y, norm, radii, protocol)


def _side(chance: random.Random) -> int:
    """5 to 40 pixels, the fewer the likelier: most controls take seconds."""
    return 5 + int(36 * chance.random() ** 3)


def _templates(classes: int, shape: tuple[int, int, int]) -> Tensor:
    """A smooth pattern for each class, with mean 0 and a contrast of its own."""
    coarse = torch.randn(classes, shape[0], 4, 4)
    return F.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=False)


def _images(templates: Tensor, n: int, spread: float) -> tuple[Tensor, Tensor]:
    """Templates at a strength of their own, shifted in brightness, in noise."""
    y = torch.randint(len(templates), (n,))
    strength, light = 0.1 + 0.15 * torch.rand(n, 1, 1, 1), 0.08 * torch.randn(n, 1, 1, 1)
    x = 0.5 + light + strength * templates[y] + spread * torch.randn(n, *templates.shape[1:])
    return x.clamp(0, 1), y


def _train(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), 0.003)
    net.train()
    for _ in range(steps):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(net(x[batch]), y[batch]).backward()
        optimizer.step()
    net.eval()
    for parameter in net.parameters():
        parameter.grad = None


def _typical_radius(net: nn.Module, x: Tensor, y: Tensor, norm: Norm) -> float:
    """The median over the right images of the first-order distance to the boundary."""
    point = x.clone().requires_grad_()
    margin = margins(net(point), y)
    grad = torch.autograd.grad(margin.sum(), point)[0].flatten(1)
    dual = {"linf": grad.abs().sum(1), "l2": grad.norm(dim=1), "l1": grad.abs().amax(1)}[norm]
    right = margin > 0
    distance = (margin / dual.clamp_min(1e-12)).detach()[right]
    return float(distance.median()) if int(right.sum()) else 0.1


def alarms(result: AttackResult, severity: str = "serious") -> Sequence[str]:
    return [f.audit for f in result.findings if f.status == "sign" and f.severity == severity]
