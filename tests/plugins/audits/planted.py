"""Attacks with a planted fault: each leaves out some images, or attacks them hardly or wrongly. They
are PGD otherwise, and are named in a protocol as `planted.py:NAME`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.plugins import Ball, Draws

BATCH = 32
Loss = Callable[[Tensor, Tensor], Tensor]


def sound(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """PGD of 40 steps from a random start, the last iterate: no fault."""
    return _climb(model, x, y, ball, draws)


def first_batch_only(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """A `break` left in the loop over batches."""
    return _some(_places(x) < BATCH, model, x, y, ball, draws)


def last_batch_dropped(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The last, partial batch is dropped before it is attacked."""
    return _some(_places(x) < (len(x) - 1) // BATCH * BATCH, model, x, y, ball, draws)


def first_class_only(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """A filter left in."""
    return _some(y == 0, model, x, y, ball, draws)


def one_class_left_out(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return _some(y != y.max(), model, x, y, ball, draws)


def every_second(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return _some(_places(x) % 2 == 0, model, x, y, ball, draws)


def few_of_each_batch(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The first 20 images of each batch."""
    return _some(_places(x) % BATCH < 20, model, x, y, ball, draws)


def all_but_the_first_of_each_batch(
    model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws
) -> Tensor:
    """A slice that begins too late."""
    return _some(_places(x) % BATCH >= 8, model, x, y, ball, draws)


def second_half_in_noise(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The skipped images keep their random start."""
    return _some(_places(x) < len(x) // 2, model, x, y, ball, draws, rest=ball.sample(x, draws))


def one_class_in_noise(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return _some(y != y.max(), model, x, y, ball, draws, rest=ball.sample(x, draws))


def second_half_by_one_pixel(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """One pixel of the skipped images is moved."""
    moved = x.clone()
    moved[:, :, 0, 0] = 1 - moved[:, :, 0, 0]
    return _some(_places(x) < len(x) // 2, model, x, y, ball, draws, rest=ball.project(moved, x))


def first_channel_only(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    def of_channel(grad: Tensor) -> Tensor:
        return torch.cat([grad[:, :1], torch.zeros_like(grad[:, 1:])], 1)

    return _climb(model, x, y, ball, draws, change=of_channel, start=x)


def first_rows_only(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Only the top quarter of the image is attacked."""
    rows = torch.arange(x.shape[2]) < max(1, x.shape[2] // 4)
    return _climb(model, x, y, ball, draws, change=lambda grad: grad * rows[:, None], start=x)


def start_after_the_first_step(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Images that the first step did not break get their start back."""
    start = ball.sample(x, draws)
    z = _climb(model, x, y, ball, draws, steps=1, start=start)
    with torch.no_grad():
        broken = model(z).argmax(1) != y
    return torch.where(broken[:, None, None, None], z, start)


def gradients_of_other_images(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The rows of the gradient are permuted."""
    return _climb(model, x, y, ball, draws, change=lambda grad: grad.roll(1, 0))


def wrong_labels(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The labels of other images: the gradient leads towards the right class, or nowhere."""
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    return _climb(model, x, (y + 1) % classes, ball, draws)


def labels_in_another_order(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The images were sorted, their labels were not."""
    return _climb(model, x, y.roll(max(1, len(y) // 2)), ball, draws)


def exception_swallowed(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """An error in the middle of the batch ends the attack, and nobody hears of it."""
    z = x.clone()
    try:
        for place in range(0, len(x), 8):
            if place >= len(x) // 2:
                raise RuntimeError("out of memory")
            rows = torch.arange(place, min(place + 8, len(x)))
            z[rows] = _climb(model, x[rows], y[rows], ball.select(rows), draws.select(rows))
    except RuntimeError:
        pass
    return z


def confident_images_left_out(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """Only images of which the model is unsure are attacked."""
    with torch.no_grad():
        sure = model(x).softmax(1).amax(1)
    return _some(sure <= sure.median(), model, x, y, ball, draws)


def nothing_at_all(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return x.clone()


def downhill(model: nn.Module, x: Tensor, y: Tensor, ball: Ball, draws: Draws) -> Tensor:
    return _climb(model, x, y, ball, draws, change=lambda grad: -grad)


FAULTS = tuple(
    name
    for name, function in list(vars().items())
    if callable(function)
    and getattr(function, "__module__", None) == __name__
    and not name.startswith("_")
    and name != "sound"
)


def named(name: str) -> str:
    """The attack as a protocol names it."""
    return f"{Path(__file__).resolve()}:{name}"


def _places(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device)


def _climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    *,
    steps: int = 40,
    start: Tensor | None = None,
    change: Callable[[Tensor], Tensor] = lambda grad: grad,
) -> Tensor:
    z = ball.sample(x, draws) if start is None else start
    step = max(2.5 / steps, 0.1) if steps > 1 else 1.0
    for _ in range(steps):
        point = z.detach().clone().requires_grad_()
        grad = torch.autograd.grad(F.cross_entropy(model(point), y, reduction="sum"), point)[0]
        z = ball.project(z + step * ball.radius(x) * ball.steepest(change(grad)), x)
    return z.detach()


def _some(
    chosen: Tensor,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    *,
    rest: Tensor | None = None,
) -> Tensor:
    """The `chosen` images (n,) are attacked, of the others `rest` is returned."""
    z, rows = (x if rest is None else rest).clone(), chosen.nonzero().flatten()
    if len(rows):
        z[rows] = _climb(model, x[rows], y[rows], ball.select(rows), draws.select(rows))
    return z
