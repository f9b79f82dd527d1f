"""Parts that work on images against their reference: an attack, an explainer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stresslens.config.registry import Bound
from stresslens.core.answers import predicted
from stresslens.core.attack_base import attacked, margins, unwatched
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws
from stresslens.core.maps import Maps
from stresslens.core.types import Finding, Positive
from stresslens.labs.agreement import differs, equal, remark, unlike

SHAPE, CLASSES, N = (1, 8, 7), 10, 24
RADII: dict[Norm, float] = {"linf": 0.1, "l2": 0.7, "l1": 3.0}
FAR_BELOW = -100.0
"""The logit of the classes that no image has."""
WEAK = 0.9
"""Share of the largest possible loss of margin on a linear model, below which an attack is weak."""


def check_attack(
    bound: Bound, reference: Bound | None, *, norm: Norm = "linf", eps: Positive | None = None
) -> list[Finding]:
    """An attack: inside ball and box, also with a radius for each image; the images and the model stay
    as they were; it lowers the margin, on a linear model nearly as far as any attack can; a target
    becomes more likely. With a reference (fgsm), the same images. `eps` is by default 0.1 in linf, 0.7
    in l2 and 3 in l1."""
    radius = RADII[norm] if eps is None else eps
    net = _net()
    x = _images()
    with attacked(net):
        y = predicted(net(x))
    trial = _Trial(bound, net, x, y)
    found = trial.images(Ball(norm, radius))
    if not isinstance(found, Tensor) or found.shape != x.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        return [differs("images", f"it returns {got}; expected images {tuple(x.shape)}", N)]
    findings = [
        trial.inside("ball and box", Ball(norm, radius)),
        trial.inside("a radius for each image", Ball(norm, radius * torch.linspace(0, 1, N))),
        trial.unchanged(),
        _margin_lost(bound, norm, radius),
    ]
    if bound.asks_for("target"):
        findings.append(_target(bound, norm, radius))
    if reference is not None:
        name = reference.function.__name__
        why_not = unlike(found, _Trial(reference, net, x, y).images(Ball(norm, radius)))  # type: ignore[arg-type]
        findings.append(
            differs("reference", f"not the images of {name}: {why_not}", N)
            if why_not
            else equal("reference", f"the images of {name}, to 1e-6", N)
        )
    return findings


@dataclass
class _Trial:
    """An attack on a net with images x (N, C, H, W) and labels y (N,)."""

    bound: Bound
    net: nn.Module
    x: Tensor
    y: Tensor
    target: Tensor | None = None

    def images(self, ball: Ball) -> object:
        """What the attack returns; the net is frozen meanwhile, as in a study."""
        with attacked(self.net):
            return self._called(ball)

    def _called(self, ball: Ball) -> object:
        return self.bound(
            model=self.net,
            x=self.x.clone(),
            y=self.y.clone(),
            ball=ball,
            draws=Draws(3, torch.arange(len(self.x))),
            watch=unwatched,
            target=self.target,
            surrogate=self.net,
        )

    def inside(self, name: str, ball: Ball) -> Finding:
        """Whether every image lies inside ball and box."""
        try:
            found = self.images(ball)
        except Exception as error:
            if isinstance(ball.eps, float):
                raise
            why = f"it raises {type(error).__name__}: {error}"
            return differs(name, why, N, "ball.radius(x) is the radius of each image, (N, 1, 1, 1)")
        if not isinstance(found, Tensor) or found.shape != self.x.shape:
            return differs(name, "it returns no images of the shape of x", N)
        found = found.detach()
        if int((~found.isfinite()).sum()):
            return differs(name, "some pixels are not finite", N)
        outside = int(((found < 0) | (found > 1)).flatten(1).any(1).sum())
        beyond = ball.size((found - self.x).double()) / ball.radius(self.x).flatten().double().clamp_min(
            1e-12
        )
        far = int((~ball.holds(found.clamp(0, 1), self.x)).sum())
        said = []
        if far:
            said.append(
                f"{far} of {N} images are outside the ball, up to {float(beyond.max()):.3g} radii away"
            )
        if outside:
            said.append(f"{outside} of {N} images leave the box [0, 1]")
        remedy = "ball.project(x_adv, x) puts images back into ball and box"
        if said:
            return differs(name, "; ".join(said), N, remedy)
        return equal(name, f"all {N} images are inside ({ball.norm}, {_radius_text(ball)})", N)

    def unchanged(self) -> Finding:
        """Whether the net and the images that were given are as before."""
        name = "no side effects"
        ball = Ball("linf", RADII["linf"])
        tensors = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        before = {key: tensor.detach().clone() for key, tensor in tensors.items()}
        with attacked(self.net):
            self._called(ball)
            modes = [key or "the model" for key, module in self.net.named_modules() if module.training]
            changed = [
                key for key, tensor in tensors.items() if not torch.equal(tensor.detach(), before[key])
            ]
        slopes = [key for key, parameter in self.net.named_parameters() if parameter.grad is not None]
        if modes:
            return differs(name, f"it puts {modes[0]} into training mode", N, "leave the mode as it is")
        if changed or slopes:
            return differs(name, f"it changes the model's {(changed or slopes)[0]}", N)
        return equal(name, "the model's weights, statistics and mode are as before", N)


def _margin_lost(bound: Bound, norm: Norm, radius: float) -> Finding:
    """How much of the largest possible loss of margin the attack takes from a linear model with two
    classes that an image can have. Pixels are far from 0 and 1, so that the dual norm of the weights
    gives the largest loss."""
    name = "margin lost"
    layer = nn.Linear(30, CLASSES)
    with torch.no_grad():
        layer.weight[:2].normal_(generator=torch.Generator().manual_seed(4))
        layer.weight[2:] = 0
        layer.bias[2:] = FAR_BELOW
    net = nn.Sequential(nn.Flatten(), layer).double()
    x = 0.4 + 0.2 * torch.rand(N, 1, 5, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    small = min(radius, {"linf": 0.1, "l2": 0.3, "l1": 0.35}[norm])
    y = predicted(net(x))
    found = _Trial(bound, net, x, y).images(Ball(norm, small))
    assert isinstance(found, Tensor)
    before, after = (margins(net(images.double()), y).detach() for images in (x, found.detach()))
    along = (layer.weight[0] - layer.weight[1]).detach()
    largest = small * {"linf": along.abs().sum(), "l2": along.norm(), "l1": along.abs().max()}[norm]
    share = float(((before - after) / largest).mean())
    said = f"{100 * share:.0f} % of the largest possible, on a linear model at {norm} {small:g}"
    if share <= 0:
        return differs(name, said, N, "the step goes the wrong way: add the sign of the gradient of the loss")
    if share < WEAK:
        return remark(name, said, N, "steps times step size may be too short to cross the ball")
    return equal(name, said, N)


def _target(bound: Bound, norm: Norm, radius: float) -> Finding:
    """Whether a targeted attack makes the least likely class more likely."""
    net, x = _net(), _images()
    with attacked(net):
        logits = net(x)
        y, target = predicted(logits), logits.argmin(1)
    found = _Trial(bound, net, x, y, target).images(Ball(norm, radius))
    assert isinstance(found, Tensor)
    with attacked(net), torch.no_grad():
        before, after = (net(images).log_softmax(1).gather(1, target[:, None]) for images in (x, found))
    up = int((after > before).sum())
    said = f"its log probability rises for {up} of {N} images"
    if up < N // 2:
        return differs("target", said, N, "step down the loss of the target, not up: it is the other sign")
    return equal("target", said, N)


def check_explainer(bound: Bound, reference: Bound | None) -> list[Finding]:
    """An explainer: one finite map for each image; with a reference (`occlusion`, `{occlusion: {size:
    3}}`), the same maps, on images that are not square."""
    net, x = _net(), _images()
    with attacked(net):
        y = predicted(net(x))

    def maps(explainer: Bound) -> object:
        with attacked(net), torch.enable_grad():
            return explainer(model=net, x=x.clone(), y=y.clone(), draws=Draws(3, torch.arange(N)))

    found = maps(bound)
    if not isinstance(found, Maps):
        remedy = "from stresslens.plugins import Maps; return Maps(values, signed, unit)"
        return [differs("maps", f"it returns a {type(found).__name__}; expected Maps", N, remedy)]
    expected = (N, *SHAPE[1:])
    if not isinstance(found.values, Tensor) or tuple(found.values.shape) != expected:
        got = tuple(found.values.shape) if isinstance(found.values, Tensor) else type(found.values).__name__
        return [differs("maps", f"they are {got}; expected {expected} (images, height, width)", N)]
    if not found.values.isfinite().all():
        return [differs("maps", "some values are not finite", N)]
    findings = [equal("maps", f"one finite value for every pixel of {N} images", N)]
    if reference is None:
        return findings
    theirs = maps(reference)
    assert isinstance(theirs, Maps)
    name = reference.function.__name__
    why_not = unlike(found.values, theirs.values, 1e-5)
    if not why_not:
        return [*findings, equal("reference", f"the maps of {name}, to 1e-5", N)]
    return [*findings, differs("reference", f"not the maps of {name}: {why_not}", N, _hint(found, theirs))]


def _hint(found: Maps, theirs: Maps) -> str:
    """Where the maps differ: in the last rows and columns alone, or by swapped rows and columns."""
    ours, other = found.values.double(), theirs.values.double()
    within = 1e-5 * float(other.abs().max())
    same = ((ours - other).abs() <= within).all(0)  # (H, W)
    rows, columns = int((~same[:, 0]).sum()), int((~same[0]).sum())
    height, width = same.shape
    if 0 < rows + columns < (height + width) / 2 and same[: height - rows, : width - columns].all():
        return f"only the last {rows} rows and {columns} columns differ: is every position covered?"
    side = min(height, width)
    if ((ours[:, :side, :side] - other[:, :side, :side].transpose(1, 2)).abs() <= within).all():
        return "rows and columns are swapped"
    return ""


def _radius_text(ball: Ball) -> str:
    if isinstance(ball.eps, Tensor):
        return f"radii from {float(ball.eps.min()):g} to {float(ball.eps.max()):g}"
    return f"radius {ball.eps:g}"


def _net() -> nn.Module:
    """A smooth net with batch norm, whose running statistics are its own, and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Dropout(0.5)]
        net = nn.Sequential(*layers, nn.Linear(6 * SHAPE[1] * SHAPE[2], CLASSES))
        with torch.no_grad():
            for _ in range(3):
                net(torch.rand(64, *SHAPE))
    return net


def _images() -> Tensor:
    """In [0, 1], many of their pixels black or white."""
    drawn = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1))
    return (1.6 * drawn - 0.3).clamp(0, 1)
