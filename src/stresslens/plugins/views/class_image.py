from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.blur import blurred
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Lines, Panel, Picture, image_pixels
from stresslens.core.types import Count, NonNegative, Positive, Seed

SURE = 0.99
BLUR = 0.7
"""Pixels; what changes from one pixel to the next is not what a class looks like."""


def class_image(
    model: nn.Module,
    train: Split | None,
    classes: Sequence[str],
    *,
    steps: Count = 400,
    lr: Positive = 0.1,
    prior: NonNegative = 0.05,
    smooth: NonNegative = 1.0,
    seed: Seed = 0,
) -> Panel:
    """An image of each class that the model is as sure of as it can be, found from noise by
    gradient ascent (Simonyan et al. 2014).

    The image stays in [0, 1], the scale the model knows, and is drawn towards what training images
    can look like: `prior` weighs the squared distance of each pixel from its mean over the training
    images, in their deviations; `smooth` the differences between neighbours, after a blur of 0.7
    pixels. Ascended is the logarithm of the class's probability; while that is below 99 %, both
    weights sink by a hundredth a step. The grid says how sure the model is, and of what; the lines
    how sure it was on the way, and the cost. Raises ConfigError without training images.
    """
    if train is None:
        raise ConfigError("class_image: it is drawn towards the training images, and none are given")
    first = next(model.parameters(), torch.empty(0))
    count, wanted = len(classes), torch.arange(len(classes), device=first.device)
    mean, deviation = (each.to(first.device) for each in _moments(train))
    noise = Draws(seed, wanted.cpu()).normal(*train.shape).to(first.device)
    free = torch.logit(mean.clamp(0.02, 0.98)).expand(count, -1, -1, -1) + 0.5 * noise
    free = free.detach().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=lr)
    weight = torch.ones(count, device=first.device)
    sure: list[Tensor] = []
    cost: list[Tensor] = []
    for _ in range(steps):
        with torch.enable_grad():
            x = blurred(free.sigmoid(), BLUR)
            logits = model(x)
            if not logits.requires_grad:
                raise ConfigError(
                    "class_image: the model passes no gradient on to its input, which this view climbs along"
                )
            chance = logits.log_softmax(1).gather(1, wanted[:, None])[:, 0]
            off = ((x - mean) / deviation).square().mean((1, 2, 3))
            loss = -chance + weight * (prior * off + smooth * _roughness(x))
            (grad,) = torch.autograd.grad(loss.sum(), free)
        free.grad = grad
        optimizer.step()
        weight = torch.where(chance.detach() < math.log(SURE), 0.99 * weight, weight)
        sure.append(chance.detach().exp())
        cost.append(loss.detach())
    with torch.no_grad():
        x = blurred(free.sigmoid(), BLUR)
        p = model(x).softmax(1)
    own = p.gather(1, wanted[:, None])[:, 0]
    guess = p.argmax(1)
    captions = [f"{classes[int(guess[k])]} {100 * float(p[k].max()):.1f} %" for k in range(count)]
    cells = [Picture(pixels, captions[k], bool(guess[k] != k)) for k, pixels in enumerate(image_pixels(x))]
    grid = Grid("An image of each class, and what the model answers", [cells], (), list(classes))
    reached = int((own >= SURE).sum())
    said = f"the model is at least {100 * SURE:.0f} % sure of {reached} of {count} class images (least {100 * float(own.min()):.1f} %)"
    lines = [
        Lines("How sure of the class on the way", "step", "probability", _by_class(sure, classes)),
        Lines("Cost on the way", "step", "cost", _by_class(cost, classes)),
    ]
    return Panel(
        [grid, *lines], [said], {"probability": own.tolist(), "predicted": guess.tolist(), "sure": reached}
    )


def _moments(train: Split) -> tuple[Tensor, Tensor]:
    """(C, H, W) each pixel's mean over the training images, and its deviation, which is not let
    below 0.05."""
    total = torch.zeros(2, *train.shape, dtype=torch.float64)
    for piece in train.pieces():
        x = train.floats(piece).double().cpu()
        total += torch.stack([x.sum(0), x.square().sum(0)])
    mean, square = total / len(train)
    return mean.float(), (square - mean.square()).clamp_min(0).sqrt().float().clamp_min(0.05)


def _roughness(x: Tensor) -> Tensor:
    """(N,) the mean squared difference between neighbouring pixels."""
    return x.diff(dim=2).square().mean((1, 2, 3)) + x.diff(dim=3).square().mean((1, 2, 3))


def _by_class(values: Sequence[Tensor], classes: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """At most 100 points of each class's line."""
    table = torch.stack(list(values)).cpu()
    steps = sorted({*range(0, len(table), max(1, len(table) // 100)), len(table) - 1})
    return {
        name: [(float(step + 1), float(table[step, k])) for step in steps] for k, name in enumerate(classes)
    }
