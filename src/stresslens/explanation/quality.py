"""Is a map worth anything? Five checks of an explainer on some images, with intervals, and in words
which it fails.

Deletion and insertion (Petsiuk et al. 2018) cover, or uncover, the pixels from the highest of the
map down, and are held against random orders of the same images; infidelity (Yeh et al. 2019) asks
whether the map says what covering a square costs; sensitivity (the same) how much it changes under
noise that hardly changes the image; randomisation (Adebayo et al. 2018) whether it looks the same
for a model whose weights have been shuffled, and so shows the image rather than what was learned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.attack_base import BatchedModel, batched_mean_logits
from stresslens.core.draws import Draws
from stresslens.core.layers import quick
from stresslens.core.maps import Maps, spans
from stresslens.core.types import Estimate
from stresslens.explanation.map_file import Quality
from stresslens.metrics.intervals import t_mean

STEPS = 20
ORDERS = 5
"""Random orders that a map's own is held against."""
SQUARES = 100
NOISE = 0.02
NOISY = 3
ALIKE = 0.5
"""Rank correlation from which on two maps are said to look the same."""
ROWS = 256

Explained = Callable[[nn.Module, Tensor, Draws], Maps]
"""Maps of images by a model; the draws are the images' own."""


@dataclass(frozen=True)
class MapQuality:
    """Each check with its mean over the images; `each` has its value for every image (N,), `failed`
    says in words what it fails."""

    checks: Mapping[str, Estimate]
    each: Mapping[str, np.ndarray]
    failed: tuple[str, ...]

    def rounded(self) -> Quality:
        """What result.json holds of it."""
        each = {name: [round(float(value), 4) for value in values] for name, values in self.each.items()}
        return Quality(checks=dict(self.checks), each=each, failed=list(self.failed))


def map_quality(
    maps: Maps,
    explained: Explained,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    filler: Tensor | None = None,
) -> MapQuality:
    """Checks the maps of images x (N, C, H, W) and classes y (N,), which `explained` made by the
    model and can make again.

    `filler` (N, C, H, W) is what a pixel is covered with, by default grey. The model is held still
    by the caller.
    """
    filler = torch.full_like(x, 0.5) if filler is None else filler
    values = maps.values.to(x.device)
    order = values.flatten(1).argsort(1, descending=True)
    fast = quick(model)
    removed, added = (_area(fast, x, y, order, filler, insert=insert) for insert in (False, True))
    random = [draws.fork(k).uniform(order.shape[1]).to(x.device).argsort(1) for k in range(ORDERS)]
    usual = [
        torch.stack([_area(fast, x, y, each, filler, insert=i) for each in random]).mean(0)
        for i in (False, True)
    ]
    each = {
        "deletion": usual[0] - removed,
        "insertion": added - usual[1],
        "infidelity": _infidelity(fast, x, y, values, filler, draws.fork(ORDERS + 1)),
        "sensitivity": _sensitivity(explained, model, x, values, draws),
    }
    if any(True for _ in model.parameters()):  # an estimator has no weights to shuffle
        shuffled = explained(_shuffled(model), x, draws.fork(ORDERS))
        each["randomisation"] = _alike(values, shuffled.values.to(x.device))
    arrays = {name: found.double().cpu().numpy() for name, found in each.items()}
    checks = {name: replace(t_mean(found), unit="images") for name, found in arrays.items()}
    return MapQuality(checks, arrays, tuple(_failed(checks)))


def _failed(checks: Mapping[str, Estimate]) -> list[str]:
    """What a reader must be told; of a single image there is no interval, and its value decides."""
    least = {name: e.low if np.isfinite(e.low) else e.value for name, e in checks.items()}
    failed = []
    if not (least["deletion"] > 0 or least["insertion"] > 0):
        failed.append("covering or uncovering its highest pixels tells no more than random ones")
    if least.get("randomisation", 0.0) > ALIKE:
        failed.append(
            "it looks much the same for a model whose weights were shuffled: it shows the image, not what was learned"
        )
    if least["sensitivity"] > 1:
        failed.append("noise that cannot be seen changes it altogether")
    return failed


def _probability(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (
        batched_mean_logits(BatchedModel(model, batch=ROWS), x).softmax(1).gather(1, y[:, None])[:, 0].float()
    )


def _area(model: nn.Module, x: Tensor, y: Tensor, order: Tensor, filler: Tensor, *, insert: bool) -> Tensor:
    """(N,) the mean probability of the class while the pixels go, or come, in this order (N, H·W)."""
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
    """(N,) the share of what covering random squares costs that the map's sums over them, scaled to
    fit best, do not tell."""
    height, width = x.shape[2:]
    least = max(1, min(height, width) // 8)
    sizes = least + draws.integers(max(1, min(height, width) // 2 - least + 1), SQUARES).to(x.device)
    corners = [(draws.uniform(SQUARES).to(x.device) * (side - sizes + 1)).long() for side in (height, width)]
    lost, told = [], []
    with torch.no_grad():
        clean = _probability(model, x, y)
        for k in range(SQUARES):
            rows, columns = (
                spans(start[:, k], sizes[:, k], side) for start, side in zip(corners, (height, width))
            )
            square = rows[:, :, None] & columns[:, None, :]
            lost.append(clean - _probability(model, torch.where(square[:, None], filler, x), y))
            told.append((values * square).flatten(1).sum(1))
    cost, sums = torch.stack(lost, 1), torch.stack(told, 1)
    scale = (cost * sums).sum(1) / sums.square().sum(1).clamp_min(1e-30)
    return (cost - scale.clamp_min(0)[:, None] * sums).square().sum(1) / cost.square().sum(1).clamp_min(1e-12)


def _sensitivity(explained: Explained, model: nn.Module, x: Tensor, values: Tensor, draws: Draws) -> Tensor:
    """(N,) how far the map moves, as a share of its length there or here: the most over `NOISY`
    images within `NOISE` a pixel, with the same draws of the explainer's own."""
    length = values.flatten(1).norm(dim=1)
    noise = draws.fork(ORDERS + 2)
    moved = []
    for _ in range(NOISY):
        near = (x + noise.uniform(*x.shape[1:], low=-NOISE, high=NOISE).to(x)).clamp(0, 1)
        other = explained(model, near, Draws(draws.seed, draws.index)).values.to(x.device)
        longest = torch.maximum(length, other.flatten(1).norm(dim=1)).clamp_min(1e-30)
        moved.append((other - values).flatten(1).norm(dim=1) / longest)
    return torch.stack(moved).amax(0)


def _shuffled(model: nn.Module) -> nn.Module:
    """The model with the entries of every parameter in another order: as large as learned ones, and
    nothing learned."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other


def _alike(one: Tensor, other: Tensor) -> Tensor:
    """(N,) Spearman's rank correlation of the sizes of two maps of each image; 0 where one of them
    is flat."""
    from scipy.stats import rankdata

    ranks = [
        torch.from_numpy(rankdata(each.abs().flatten(1).double().cpu().numpy(), axis=1))
        for each in (one, other)
    ]
    a, b = (r - r.mean(1, keepdim=True) for r in ranks)
    found: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-30)
    return found
