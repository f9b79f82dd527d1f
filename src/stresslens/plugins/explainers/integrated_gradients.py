from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.layer_table import multiply_adds_of
from stresslens.core.maps import Maps
from stresslens.core.types import Count
from stresslens.plugins.explainers._baselines import baseline
from stresslens.plugins.explainers._passes import Of, pieces, rows, score, slopes

WITHIN = 1e-3
MOST = 4096
WORK = 3e11
"""Multiply-adds for each image, at most, of steps beyond those that are asked for."""


def integrated_gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    train: Split | None,
    *,
    start: Annotated[float, Field(ge=0, le=1)] | Literal["mean", "blur"] = 0.0,
    steps: Count = 32,
    of: Of = "logit",
) -> Maps:
    """Integrated gradients along the line from a baseline to the image (Sundararajan et al. 2017).

    The integrated gradient is multiplied by the image minus the baseline, so the map adds up to the
    difference between the scores at both ends. The baseline is `start`: a grey (by default black),
    the training mean, or the blurred image.

    The integral uses Gauss-Legendre quadrature with `steps` points. If an image's map does not add
    up to within 0.1 % of the difference (or 0.001 if that is below 1), it is computed again with
    twice as many points, up to 4,096; in a large net with fewer, whose gradients take `WORK`. A note
    gives the number of images for which this fails. Raises ConfigError for the mean without training
    images.
    """
    origin = baseline(x, start, train, "integrated_gradients")
    path = x - origin
    with torch.no_grad():
        ends = [
            torch.cat([score(model(part), classes, of) for part, classes in pieces(model, end, y)])
            for end in (x, origin)
        ]
    difference = (ends[0] - ends[1]).double()
    values = torch.zeros_like(x)
    left = torch.arange(len(x), device=x.device)
    most = max(steps, min(MOST, WORK / max(1, 3 * multiply_adds_of(model, tuple(x.shape[1:])))))  # type: ignore[arg-type]
    while len(left) and steps <= most:
        values[left] = _integral(model, origin[left], path[left], y[left], of, steps)
        gap = (values[left].double().sum((1, 2, 3)) - difference[left]).abs()
        left = left[gap > WITHIN * difference[left].abs().clamp_min(1)]
        steps *= 2
    notes = (
        (f"the sum of {len(left)} of {len(x)} maps is more than 0.1 % off the difference of the scores",)
        if len(left)
        else ()
    )
    return Maps(values.sum(1).float().cpu(), True, f"share of the {of.replace('_', ' ')}'s difference", notes)


def cost(*, steps: int) -> float:
    return steps


@cache
def _rule(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and weights of Gauss-Legendre quadrature. It takes seconds to compute 2,048 of them."""
    return np.polynomial.legendre.leggauss(steps)


def _integral(model: nn.Module, origin: Tensor, path: Tensor, y: Tensor, of: Of, steps: int) -> Tensor:
    nodes, weights = (torch.from_numpy(values).to(path.device) / 2 for values in _rule(steps))
    total = torch.zeros_like(path, dtype=torch.float64)
    at_once = max(1, rows(model, path, gradient=True) // len(path))
    for some, weight in zip((nodes + 0.5).split(at_once), weights.split(at_once)):
        share = some.to(path.dtype).view(-1, 1, 1, 1, 1)
        found = slopes(model, (origin + share * path).flatten(0, 1), y.repeat(len(some)), of)
        total += torch.tensordot(weight, found.unflatten(0, (len(some), len(path))).double(), 1)
    return (total * path).to(path.dtype)
