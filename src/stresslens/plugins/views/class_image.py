from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.answers import answer_with_confidence, predicted
from stresslens.core.blur import blurred
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Lines, Panel, Picture, image_pixels
from stresslens.core.pass_memory import images_at_once, logits_in_pieces
from stresslens.core.pieces import in_pieces
from stresslens.core.types import Count, NonNegative, Positive, Seed

SURE = 0.99
BLUR = 0.7
"""Blur in pixels, because changes from one pixel to the next are not typical of a class."""


# long: options are spelled out, one a line, and the ascent reads in one piece
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
    """Class visualisation: an image of each class with maximal probability (Simonyan et al. 2014).

    Gradient ascent starts from noise and raises the logarithm of the class's probability. The image
    stays in [0, 1], and two penalties keep it similar to training images: `prior` weights the
    squared distance of each pixel from its mean over the training images, in standard deviations;
    `smooth` weights the differences between neighbouring pixels, after a blur of 0.7 pixels. While
    the probability is below 99 %, both weights fall by 1 % a step. The grid shows the predicted
    class and its probability; the lines show probability and cost by step. Raises ConfigError
    without training images.
    """
    if train is None:
        raise ConfigError("class_image: it needs training images, and none are given")
    device = device_of(model)
    count, wanted = len(classes), torch.arange(len(classes), device=device)
    mean, deviation = (values.to(device) for values in _moments(train))
    noise = Draws(seed, wanted.cpu()).normal(*train.shape).to(device)
    free = torch.logit(mean.clamp(0.02, 0.98)).expand(count, -1, -1, -1) + 0.5 * noise
    free = free.detach().requires_grad_()
    size = images_at_once(model, train.shape, count, gradient=True)
    optimizer = torch.optim.Adam([free], lr=lr)
    weight = torch.ones(count, device=device)
    probability: list[Tensor] = []
    cost: list[Tensor] = []

    def slopes(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Log probability and cost of some of the images, (n,) each, and the gradient of the cost."""
        point = free.detach()[rows].requires_grad_()
        with torch.enable_grad():
            x = blurred(point.sigmoid(), BLUR)
            logits = model(x)
            if not logits.requires_grad:
                raise ConfigError(
                    "class_image: the model passes no gradient back to its input, which this view needs"
                )
            log_p = logits.log_softmax(1).gather(1, wanted[rows, None])[:, 0]
            off = ((x - mean) / deviation).square().mean((1, 2, 3))
            loss = -log_p + weight[rows] * (prior * off + smooth * _roughness(x))
            (grad,) = torch.autograd.grad(loss.sum(), point)
        return log_p.detach(), loss.detach(), grad

    for _ in range(steps):
        log_p, loss, free.grad = (torch.cat(c) for c in zip(*in_pieces(slopes, count, size)))
        optimizer.step()
        weight = torch.where(log_p < math.log(SURE), 0.99 * weight, weight)
        probability.append(log_p.exp())
        cost.append(loss)
    with torch.no_grad():
        x = blurred(free.sigmoid(), BLUR)
        p = logits_in_pieces(model, x).softmax(1)
    of_class = p.gather(1, wanted[:, None])[:, 0]
    answers = predicted(p)
    captions = [answer_with_confidence(each, classes, 1) for each in p]
    cells = [Picture(pixels, captions[k], bool(answers[k] != k)) for k, pixels in enumerate(image_pixels(x))]
    grid = Grid("An image of each class, and the model's prediction", [cells], (), list(classes))
    reached = int((of_class >= SURE).sum())
    sentence = (
        f"{reached} of {count} class images have a probability of at least {100 * SURE:.0f} % "
        f"(lowest {100 * float(of_class.min()):.1f} %)"
    )
    lines = [
        Lines("Probability of the class by step", "step", "probability", _by_class(probability, classes)),
        Lines("Cost by step", "step", "cost", _by_class(cost, classes)),
    ]
    facts = {"probability": of_class.tolist(), "predicted": answers.tolist(), "sure": reached}
    return Panel([grid, *lines], [sentence], facts)


def _moments(train: Split) -> tuple[Tensor, Tensor]:
    """(C, H, W) mean and standard deviation (at least 0.05) of each pixel over the training
    images."""
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
    """Each class's line, of about 100 points."""
    table = torch.stack(list(values)).cpu()
    steps = sorted({*range(0, len(table), max(1, len(table) // 100)), len(table) - 1})
    return {
        name: [(float(step + 1), float(table[step, k])) for step in steps] for k, name in enumerate(classes)
    }
