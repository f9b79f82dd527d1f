"""Parts of a training step against their reference: a gradient, a loss, an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.known_plugins import must_be_told
from stresslens.config.registry import Bound
from stresslens.core.errors import ConfigError
from stresslens.core.types import Count, Finding
from stresslens.labs.agreement import differs, equal, remark, unlike, verdict
from stresslens.labs.network_parts import ImageShape

BATCHES = (1, 11, 29)
STEP = 1e-5
"""Of the finite differences."""
GRAPH = "the loss has a graph, so that training adds autograd's gradient to yours"
HOW_TO_STEP = "leave the weights as they are: the optimizer does the step"


@dataclass(frozen=True)
class _Size:
    """Of the images (C, H, W), and how many classes they have."""

    shape: tuple[int, int, int]
    classes: int

    def __str__(self) -> str:
        return f"{math.prod(self.shape)} inputs and {self.classes} classes"

    def images(self, n: int) -> Tensor:
        return torch.rand(n, *self.shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64)

    def labels(self, n: int) -> Tensor:
        return torch.randint(self.classes, (n,), generator=torch.Generator().manual_seed(n))


DIGITS = _Size((1, 8, 8), 10)
"""The data of lab A, with which a part is checked."""
OTHER = _Size((2, 3, 4), 5)
"""A part that is right for its data, but not for this size, has the size written into it."""


def check_gradient(
    bound: Bound,
    reference: Bound | None,
    *,
    net: Literal["linear", "mlp"] = "linear",
    shape: ImageShape = DIGITS.shape,
    classes: Count = DIGITS.classes,
) -> list[Finding]:
    """Gradients written by hand, an objective with `net`, `inputs` and `y`: the loss against those of
    the reference, and what it leaves in `.grad` against autograd and against finite differences.

    `reference` is a loss; without one, any built-in loss may be meant. float64, batches of 1, 11 and
    29 images of `shape`. That it is wrong at another size is a remark.
    """
    if not bound.asks_for("net") or not bound.asks_for("inputs"):
        return [
            differs(
                "signature", "it does not ask for net and inputs", 0, "write def gradient(net, inputs, y):"
            )
        ]
    losses = _candidates("losses", reference)
    return _at_two_sizes(lambda size: _gradient(bound, losses, net, size), _Size(shape, classes))


def _at_two_sizes(check: Callable[[_Size], list[Finding]], size: _Size) -> list[Finding]:
    """The findings at a size; if none is a mistake, also a remark where there is one at `OTHER`."""
    found = check(size)
    if any(each.severity == "serious" for each in found):
        return found
    try:
        wrong = [f"{each.audit}: {each.evidence}" for each in check(OTHER) if each.severity == "serious"]
    except Exception as error:
        wrong = [f"it raises {type(error).__name__}: {error}"]
    if not wrong:
        return [*found, equal("other sizes", f"it is right for {OTHER} too", 1)]
    why = f"it works for {size} only; for {OTHER}, {wrong[0]}"
    return [
        *found,
        remark("other sizes", why, 1, "take the sizes from the tensors; for this data it is right"),
    ]


def _gradient(
    bound: Bound, losses: dict[str, Bound], net: Literal["linear", "mlp"], size: _Size
) -> list[Finding]:
    values = {"linear": "linear", "mlp": {"mlp": {"widths": [7, 6]}}}
    build = registry.resolve("models", values[net])
    model = _seeded(lambda: build(shape=size.shape, classes=size.classes)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(2))
    name, loss = min(losses.items(), key=lambda item: _gap(bound, model, item[1], size))
    said, slopes, numeric, with_graph = [], dict[str, list[str]](), [], False
    for n in BATCHES:
        inputs, y = size.images(n), size.labels(n)
        before = [p.detach().clone() for p in model.parameters()]
        found, written = _written(bound, model, inputs, y)
        if isinstance(found, Tensor) and found.requires_grad:
            if all(gradient is None for gradient in written):
                why = "it is not set, and the loss has a graph, so the gradient is autograd's"
                return [differs("gradient", why, 1, "write it to .grad inside torch.no_grad()")]
            found, with_graph = found.detach(), True
        if any(not torch.equal(a, b.detach()) for a, b in zip(before, model.parameters())):
            return [differs("weights", "the weights are changed", 1, HOW_TO_STEP)]
        value = loss(logits=model(inputs), y=y)
        if why_not := unlike(found, value):
            said.append(f"not {name}, for a batch of {n}: {why_not}")
        expected = torch.autograd.grad(value, list(model.parameters()))
        for (weight, _), ours, theirs in zip(model.named_parameters(), written, expected):
            if why_not := unlike(ours, theirs) if ours is not None else "it is not set":
                slopes.setdefault(weight, []).append(f"for a batch of {n}: {why_not}")
        numeric += [] if said else _finite_differences(bound, model, inputs, y, written)
    factor, n = "is it the mean over the images, and for mse over the classes as well?", len(BATCHES)
    own = "it is the slope of your own loss"
    return [
        verdict("loss", said, f"equals {name} for batches of 1, 11 and 29 images", n, factor),
        *(
            verdict(f"gradient of {weight}", slopes.get(weight, []), "equals autograd's to 1e-6", n, factor)
            for weight, _ in model.named_parameters()
        ),
        *([] if said else [verdict("finite differences", numeric, own, n, "it is not the loss's slope")]),
        *(
            [differs("graph", GRAPH, n, "compute it inside torch.no_grad(), or return loss.detach()")]
            * with_graph
        ),
    ]


def check_loss(bound: Bound, reference: Bound | None) -> list[Finding]:
    """A loss of logits (N, K) and labels (N,): value and slope against the reference, in float64, also
    with large logits. Without a reference, any built-in loss may be meant. That it is wrong for another
    number of classes is a remark."""
    losses = _candidates("losses", reference)
    return _at_two_sizes(lambda size: _loss(bound, losses, size), DIGITS)


def _loss(bound: Bound, losses: dict[str, Bound], size: _Size) -> list[Finding]:
    def unequal(loss: Callable[..., Tensor]) -> list[str]:
        said = []
        for n, scale in [(1, 3.0), (7, 3.0), (64, 3.0), (7, 1e3)]:
            logits, y = scale * _normal(n, size.classes), size.labels(n)
            for what, ours, theirs in zip(
                ("value", "slope"), _slope(bound, logits, y), _slope(loss, logits, y)
            ):
                if why_not := unlike(ours, theirs):
                    said.append(
                        f"{what} for a batch of {n} with logits up to {logits.abs().max():.0f}: {why_not}"
                    )
        return said

    name, said = min(((name, unequal(loss)) for name, loss in losses.items()), key=lambda item: len(item[1]))
    remedy = "a loss is the mean over the images; exponentials of large logits overflow, log_softmax does not"
    right = f"value and slope equal those of {name}, to 1e-6"
    return [
        verdict("reference", [f"not {name}: {why}" for why in said], right, 4, remedy),
        _one_hot(bound, size),
    ]


def _one_hot(bound: Bound, size: _Size) -> Finding:
    logits, y = _normal(7, size.classes), size.labels(7)
    try:
        given = bound(logits=logits, y=F.one_hot(y, size.classes).double())
    except Exception as error:
        why_not: str | None = f"raises {type(error).__name__}"
    else:
        why_not = unlike(given, bound(logits=logits, y=y))
    if why_not is None:
        return equal("one-hot labels", "give the same loss as class numbers", 1)
    return remark(
        "one-hot labels", f"not usable: {why_not}", 1, "mixup and cutmix need them; without these it is fine"
    )


def check_optimizer(bound: Bound, reference: Bound | None) -> list[Finding]:
    """An optimizer: the weights of a small net after each of ten steps against the reference's, with
    another learning rate from the sixth on. Without a reference, any built-in one may be meant."""

    def paths(optimizer: Callable[..., torch.optim.Optimizer]) -> list[Tensor] | str:
        weights = [nn.Parameter(_normal(4, 3)), nn.Parameter(_normal(3, 1)), nn.Parameter(_normal(2, 2))]
        steps = optimizer(parameters=weights, lr=0.05)
        if not isinstance(steps, torch.optim.Optimizer):
            return f"it returns a {type(steps).__name__}; expected a torch.optim.Optimizer"
        path = []
        for k in range(10):
            for group in steps.param_groups:
                group["lr"] = 0.05 if k < 5 else 0.005
            steps.zero_grad()
            x = _normal(6, 4, seed=k)
            ((x @ weights[0]).tanh() @ weights[1]).square().mean().backward()  # the third gets no gradient
            steps.step()
            path.append(torch.cat([w.detach().flatten() for w in weights]).clone())
        return path

    found = paths(bound)
    if isinstance(found, str):
        return [differs("optimizer", found, 1)]
    first: dict[str, tuple[int, str]] = {}
    for name, optimizer in _candidates("optimizers", reference).items():
        expected = paths(optimizer)
        assert not isinstance(expected, str)
        wrong = ((k, why) for k, pair in enumerate(zip(found, expected), 1) if (why := unlike(*pair)))
        first[name] = next(wrong, (11, ""))
    name, (step, why_not) = max(first.items(), key=lambda item: item[1][0])
    if step > 10:
        return [
            equal("steps", f"ten steps equal those of {name}, also after a change of the learning rate", 10)
        ]
    remedy = (
        "read the learning rate from self.param_groups in every step"
        if step == 6
        else "compare the update with the formula; `# part: optimizer NAME` names the reference"
    )
    return [differs("steps", f"step {step} is not that of {name}: {why_not}", 10, remedy)]


def _candidates(folder: str, reference: Bound | None) -> dict[str, Bound]:
    """The reference, or every built-in plug-in of the folder that is known by its name alone."""
    if reference is not None:
        return {reference.function.__name__: reference}
    known = [name for name in registry.names(folder) if not must_be_told(folder, name)]
    return {name: registry.resolve(folder, name) for name in known}


def _gap(bound: Bound, model: nn.Module, loss: Bound, size: _Size) -> float:
    """How far the part's loss is from another on one batch."""
    inputs, y = size.images(11), size.labels(11)
    found, _ = _written(bound, model, inputs, y)
    gap = (
        abs(float(found.detach()) - float(loss(logits=model(inputs), y=y).detach()))
        if isinstance(found, Tensor)
        else 0.0
    )
    return gap if gap == gap else float("inf")


def _written(bound: Bound, model: nn.Module, inputs: Tensor, y: Tensor) -> tuple[object, list[Tensor | None]]:
    """What an objective returns, and the gradients that it leaves."""
    for parameter in model.parameters():
        parameter.grad = None
    found = bound(net=model, inputs=inputs.clone(), y=y.clone())
    return found, [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def _finite_differences(
    bound: Bound, model: nn.Module, inputs: Tensor, y: Tensor, written: list[Tensor | None]
) -> list[str]:
    """Where the gradients are not the slope of the part's own loss; the first entries of each."""
    said = []
    for (name, parameter), slope in zip(model.named_parameters(), written):
        for k in (
            range(min(3, parameter.numel())) if slope is not None and slope.shape == parameter.shape else ()
        ):
            values = parameter.data.view(-1)
            ends = []
            for sign in (1, -1):
                values[k] += sign * STEP
                ends.append(float(torch.as_tensor(bound(net=model, inputs=inputs, y=y)).detach()))
                values[k] -= sign * STEP
            measured = (ends[0] - ends[1]) / (2 * STEP)
            given = float(slope.reshape(-1)[k])  # type: ignore[union-attr]
            if abs(measured - given) > 1e-4 * max(abs(measured), abs(given), 1e-3):
                said.append(f"{name}, entry {k}: {given:.5g}; the loss rises by {measured:.5g}")
    return said


def _slope(loss: Callable[..., Tensor], logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    z = logits.clone().requires_grad_()
    value = loss(logits=z, y=y.clone())
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(f"a loss returns a tensor without dimensions and with a graph; got {what}")
    return value.detach(), torch.autograd.grad(value, z)[0]


def _normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()
