"""Mistakes of the original lab, kept for demonstration: its occlusion maps, class images and impostors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.plugins import Count, Grid, Maps, NonNegative, Panel, Picture, Positive, Split, image_pixels


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


def class_image_as_published(
    model: nn.Module,
    x: Tensor,
    classes: Sequence[str],
    *,
    steps: Count = 10_000,
    lr: Positive = 0.05,
    limit: Positive = 0.3,
    start: float = 128.0,
    noise: NonNegative = 1.0,
) -> Panel:
    """Class images on a scale of 0 to 255, which the model has never seen.

    Gradient ascent raises the logit of each class from `start`, with normal noise of deviation
    `noise`, by steps of `lr` times the gradient, each at most `limit` in a pixel. Nothing keeps the
    images similar to training images. The grid shows the predicted class and its probability.
    """
    wanted = torch.arange(len(classes), device=x.device)
    first = _noise(x[:1].expand(len(classes), -1, -1, -1), start, noise)
    found, _ = _ascended(model, first, wanted, steps, lr, limit)
    with torch.no_grad():
        best = model(found).softmax(1).max(1)
    taken = best.indices == wanted
    cells = [
        Picture(pixels, f"{classes[int(k)]} {100 * float(p):.1f} %", not bool(right))
        for pixels, k, p, right in zip(image_pixels(found / 255), best.indices, best.values, taken)
    ]
    moved = (found - first).abs().mean()
    said = (
        f"{int(taken.sum())} of {len(classes)} class images are classified as the class that they were "
        f"made for; in {steps:,} steps a pixel moved by {float(moved):.1f} of 255 grey levels on average"
    )
    return Panel(
        [Grid("Class images as the original made them", [cells], (), list(classes))],
        [said],
        {"taken": int(taken.sum()), "moved": float(moved)},
    )


def inert_impostor(
    model: nn.Module,
    train: Split | None,
    classes: Sequence[str],
    *,
    beta: NonNegative = 0.001,
    steps: Count = 5_000,
    lr: Positive = 0.05,
    limit: Positive = 0.3,
    start: float = 128.0,
    noise: NonNegative = 1.0,
) -> Panel:
    """Impostors on a scale of 0 to 255, with the original's prior.

    The ascent is that of `class_image_as_published`, minus `beta` times the mean squared distance
    to a training image of the other class. The panel states how many impostors are classified as
    wanted, and by how many grey levels the prior pushed a pixel in all steps together. It needs the
    training split.
    """
    assert train is not None
    first = next(model.parameters())
    sources = torch.stack(
        [train.floats(train.images[(train.labels == k).nonzero()[:1, 0]])[0] for k in range(len(classes))]
    )
    pairs = [(i, j) for i in range(len(classes)) for j in range(len(classes)) if i != j]
    goal = 255 * sources[[i for i, _ in pairs]].to(first.device, torch.float32)
    wanted = torch.tensor([j for _, j in pairs], device=first.device)
    found, pushed = _ascended(model, _noise(goal, start, noise), wanted, steps, lr, limit, goal, beta)
    with torch.no_grad():
        guess = model(found).argmax(1)
    taken = int((guess == wanted).sum())
    pixels = image_pixels(found / 255)
    cells: list[list[Picture | None]] = [[None] * len(classes) for _ in classes]
    for k, (i, j) in enumerate(pairs):
        cells[i][j] = Picture(pixels[k], classes[int(guess[k])], bool(guess[k] != j))
    said = (
        f"{taken} of {len(pairs)} impostors are classified as the class that they were made for; on a "
        f"scale of 0 to 255 the prior with β = {beta:g} pushed no pixel by more than {pushed:.2f} grey "
        f"levels in {steps:,} steps{', so it has no visible effect' if pushed < 1 else ''}"
    )
    return Panel(
        [Grid("Impostors as the original made them", cells, list(classes), list(classes))],
        [said],
        {"taken": taken, "pushed": pushed},
    )


def _noise(like: Tensor, start: float, deviation: float) -> Tensor:
    drawn = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    return (start + deviation * drawn).to(like.device)


def _ascended(
    model: nn.Module,
    x: Tensor,
    wanted: Tensor,
    steps: int,
    lr: float,
    limit: float,
    goal: Tensor | None = None,
    beta: float = 0.0,
) -> tuple[Tensor, float]:
    """The images after the ascent, and the largest sum of a pixel's steps that are due to the
    prior."""
    pushed = torch.zeros_like(x)
    for _ in range(steps):
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            logit = model(point).gather(1, wanted[:, None]).sum()
            (grad,) = torch.autograd.grad(logit, point)
        if goal is not None:
            prior = 2 * beta * (goal - x) / x[0].numel()  # of the mean over an image's pixels
            grad = grad + prior
            pushed += lr * prior
        x = (x + (lr * grad).clamp(-limit, limit)).clamp(0, 255)
    return x, float(pushed.abs().max())
