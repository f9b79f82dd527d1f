"""Two mistakes of the original lab, kept for demonstration: its occlusion maps and its impostors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.plugins import Count, Grid, Maps, Panel, Picture, Split, image_pixels


def swapped_occlusion(model: nn.Module, x: Tensor, y: Tensor, *, size: Count = 7) -> Maps:
    """The probability lost under a grey square, with two mistakes.

    Rows and columns are swapped when the value is stored, and the square never covers the last row
    and column.
    """
    last = x.shape[2] - size
    values = torch.zeros(len(x), *x.shape[2:])
    with torch.no_grad():
        clean = model(x).softmax(1).gather(1, y[:, None])[:, 0]
        for row in range(last):
            for column in range(last):
                covered = x.clone()
                covered[:, :, row : row + size, column : column + size] = 0.5
                kept = model(covered).softmax(1).gather(1, y[:, None])[:, 0]
                values[:, column + size // 2, row + size // 2] = (clean - kept).cpu()
    return Maps(
        values,
        True,
        "probability lost",
        ("rows and columns are swapped, and the last positions are missing",),
    )


def inert_impostor(
    model: nn.Module,
    train: Split | None,
    classes: Sequence[str],
    *,
    beta: float = 0.001,
    steps: Count = 200,
    lr: float = 0.05,
) -> Panel:
    """Impostors on a scale of 0 to 255, with and without the original's prior.

    The panel states the largest number of grey levels by which the prior moved a pixel. `beta` is
    the weight of the prior, `lr` the step size of the gradient ascent. It needs the training split.
    """
    assert train is not None
    first = next(model.parameters())
    sources = torch.stack(
        [train.floats(train.images[(train.labels == k).nonzero()[:1, 0]])[0] for k in range(len(classes))]
    )
    pairs = [(i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j]
    goal = 255 * sources[[i for i, _ in pairs]].to(first.device, torch.float32)
    wanted = torch.tensor([j for _, j in pairs], device=first.device)
    noise = 255 * torch.rand(goal.shape, generator=torch.Generator().manual_seed(0)).to(first.device)
    with_prior, without = (_ascended(model, noise.clone(), goal, wanted, b, steps, lr) for b in (beta, 0.0))
    moved = float((with_prior - without).abs().max())
    with torch.no_grad():
        guess = model(with_prior).argmax(1)
    pixels = image_pixels(with_prior / 255)
    cells: list[list[Picture | None]] = [[None] * len(classes) for _ in classes]
    for k, (i, j) in enumerate(pairs):
        cells[i][j] = Picture(pixels[k], classes[int(guess[k])], bool(guess[k] != j))
    said = (
        f"on a scale of 0 to 255 the prior with β = {beta:g} moved no pixel by more than "
        f"{moved:.2f} grey levels in {steps} steps: "
        "what is taken for the class is the noise it began with"
    )
    return Panel(
        [Grid("Impostors as the original made them", cells, list(classes), list(classes))],
        [said],
        {"moved": moved},
    )


def _ascended(
    model: nn.Module, x: Tensor, goal: Tensor, wanted: Tensor, beta: float, steps: int, lr: float
) -> Tensor:
    for _ in range(steps):
        with torch.enable_grad():
            x.requires_grad_()
            logit = model(x).gather(1, wanted[:, None]).sum()
            (grad,) = torch.autograd.grad(logit - beta * (x - goal).square().mean((1, 2, 3)).sum(), x)
        x = (x.detach() + lr * grad).clamp(0, 255)
    return x
