"""Quality checks of attribution maps: deletion, insertion, infidelity, sensitivity, randomisation.

Each check has a value for every image, and a mean with an interval. Deletion and insertion (Petsiuk
et al. 2018) cover or uncover the pixels, those with the highest values first, and compare the
predicted probability with that for random orders of the pixels. Infidelity (Yeh et al. 2019)
compares the map with the loss of probability when squares are covered. Sensitivity (same paper)
measures how much the map changes under noise that hardly changes the image. Randomisation (Adebayo
et al. 2018) compares it with the map for a model whose weights are shuffled: if they look the same,
the map shows the image, not what the model has learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, batched_mean_logits
from stresslens.core.copies import copied, quick
from stresslens.core.draws import Draws
from stresslens.core.maps import Maps, spans
from stresslens.core.types import Estimate
from stresslens.explanation.map_file import Quality
from stresslens.metrics.intervals import t_mean

STEPS = 20
ORDERS = 5
"""The number of random pixel orders that the order of a map is compared with."""
SQUARES = 100
NOISE = 0.02
NOISY = 3
ALIKE = 0.5
"""Two maps look the same if their rank correlation is above this."""
ROWS = 256

MapFunction = Callable[[nn.Module, Tensor, Draws], Maps]
"""Computes the maps of images (N, C, H, W) for a model, with the random draws of each image."""


@dataclass(frozen=True)
class MapQuality:
    """The quality checks of N maps: `checks` has their means over the images, `each` their values
    (N,) for every image, and `failed` says in words which checks the maps fail."""

    checks: Mapping[str, Estimate]
    each: Mapping[str, np.ndarray]
    failed: tuple[str, ...]

    def rounded(self) -> Quality:
        """The checks as in result.json, with four decimals."""
        each = {name: [round(float(value), 4) for value in values] for name, values in self.each.items()}
        return Quality(checks=dict(self.checks), each=each, failed=list(self.failed))


def map_quality(
    maps: Maps,
    compute_maps: MapFunction,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    filler: Tensor | None = None,
) -> MapQuality:
    """Checks the maps of images x (N, C, H, W) for classes y (N,). `compute_maps` has computed
    them, and computes maps of other images and for other models.

    `filler` (N, C, H, W) covers pixels; by default it is grey. The model must be frozen
    (`attacked`).
    """
    filler = torch.full_like(x, 0.5) if filler is None else filler
    values = maps.values.to(x.device)
    order = values.flatten(1).argsort(1, descending=True)
    fast = quick(model, x)
    deletion, insertion = (_area(fast, x, y, order, filler, insert=insert) for insert in (False, True))
    random = [draws.fork(k).uniform(order.shape[1]).to(x.device).argsort(1) for k in range(ORDERS)]
    random_deletion, random_insertion = (
        torch.stack([_area(fast, x, y, order, filler, insert=insert) for order in random]).mean(0)
        for insert in (False, True)
    )
    by_image = {
        "deletion": random_deletion - deletion,
        "insertion": insertion - random_insertion,
        "infidelity": _infidelity(fast, x, y, values, filler, draws.fork(ORDERS + 1)),
        "sensitivity": _sensitivity(compute_maps, model, x, values, draws),
    }
    if any(True for _ in model.parameters()):  # an estimator has no weights to shuffle
        shuffled = compute_maps(_shuffled(model), x, draws.fork(ORDERS))
        by_image["randomisation"] = _alike(values, shuffled.values.to(x.device))
    arrays = {name: check.double().cpu().numpy() for name, check in by_image.items()}
    checks = {name: replace(t_mean(check), unit="images") for name, check in arrays.items()}
    return MapQuality(checks, arrays, tuple(_failed(checks)))


def _failed(checks: Mapping[str, Estimate]) -> list[str]:
    """The failed checks, in words. The lower end of the interval decides; a single image has no
    interval, so its value decides."""
    low = {name: e.low if np.isfinite(e.low) else e.value for name, e in checks.items()}
    failed = []
    if not (low["deletion"] > 0 or low["insertion"] > 0):
        failed.append("covering or uncovering its highest pixels tells no more than random ones")
    if low.get("randomisation", 0.0) > ALIKE:
        failed.append(
            "it looks much the same for a model whose weights were shuffled: "
            "it shows the image, not what was learned"
        )
    if low["sensitivity"] > 1:
        failed.append("noise that cannot be seen changes it altogether")
    return failed


def _probability(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (
        batched_mean_logits(BatchedModel(model, batch=ROWS), x).softmax(1).gather(1, y[:, None])[:, 0].float()
    )


def _area(model: nn.Module, x: Tensor, y: Tensor, order: Tensor, filler: Tensor, *, insert: bool) -> Tensor:
    """(N,) the mean probability of the class while pixels are covered, or with `insert` uncovered,
    in this order (N, H·W)."""
    pixels = order.shape[1]
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(pixels, device=order.device).expand_as(order)
    )
    rank = rank.view(len(x), 1, *x.shape[2:])
    heights = []
    with torch.no_grad():
        for step in range(STEPS + 1):
            first = rank < round(pixels * step / STEPS)
            heights.append(
                _probability(
                    model, torch.where(first, x, filler) if insert else torch.where(first, filler, x), y
                )
            )
    return torch.trapezoid(torch.stack(heights), dim=0) / STEPS


def _infidelity(
    model: nn.Module, x: Tensor, y: Tensor, values: Tensor, filler: Tensor, draws: Draws
) -> Tensor:
    """(N,) infidelity: how badly the sums of the map over random squares predict the loss of
    probability when the squares are covered. It is the squared error after the best scaling of the
    sums, as a share of the squared losses: 0 if the prediction is perfect."""
    height, width = x.shape[2:]
    smallest = max(1, min(height, width) // 8)
    sizes = smallest + draws.integers(max(1, min(height, width) // 2 - smallest + 1), SQUARES).to(x.device)
    corners = [(draws.uniform(SQUARES).to(x.device) * (side - sizes + 1)).long() for side in (height, width)]
    losses, sums_ = [], []
    with torch.no_grad():
        clean = _probability(model, x, y)
        for k in range(SQUARES):
            rows, columns = (
                spans(start[:, k], sizes[:, k], side) for start, side in zip(corners, (height, width))
            )
            square = rows[:, :, None] & columns[:, None, :]
            losses.append(clean - _probability(model, torch.where(square[:, None], filler, x), y))
            sums_.append((values * square).flatten(1).sum(1))
    loss, sums = torch.stack(losses, 1), torch.stack(sums_, 1)
    scale = (loss * sums).sum(1) / sums.square().sum(1).clamp_min(1e-30)
    return (loss - scale.clamp_min(0)[:, None] * sums).square().sum(1) / loss.square().sum(1).clamp_min(1e-12)


def _sensitivity(
    compute_maps: MapFunction, model: nn.Module, x: Tensor, values: Tensor, draws: Draws
) -> Tensor:
    """(N,) sensitivity: the largest distance between the map and the map of a noisy image, divided
    by the larger norm of the two. There are `NOISY` noisy images, with noise up to `NOISE` at each
    pixel; the explainer's random draws are the same."""
    length = values.flatten(1).norm(dim=1)
    noise = draws.fork(ORDERS + 2)
    moved = []
    for _ in range(NOISY):
        near = (x + noise.uniform(*x.shape[1:], low=-NOISE, high=NOISE).to(x)).clamp(0, 1)
        other = compute_maps(model, near, Draws(draws.seed, draws.index)).values.to(x.device)
        longest = torch.maximum(length, other.flatten(1).norm(dim=1)).clamp_min(1e-30)
        moved.append((other - values).flatten(1).norm(dim=1) / longest)
    return torch.stack(moved).amax(0)


def _shuffled(model: nn.Module) -> nn.Module:
    """A copy of the model with the entries of every parameter shuffled. The weights keep their
    sizes, and what was learned is lost."""
    other = copied(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other


def _alike(one: Tensor, other: Tensor) -> Tensor:
    """(N,) Spearman's rank correlation between the absolute values of two maps of each image; 0 if
    one of them is constant."""
    from scipy.stats import rankdata

    ranks = [
        torch.from_numpy(rankdata(values.abs().flatten(1).double().cpu().numpy(), axis=1))
        for values in (one, other)
    ]
    a, b = (r - r.mean(1, keepdim=True) for r in ranks)
    correlation: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-30)
    return correlation
