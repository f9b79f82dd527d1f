from __future__ import annotations

from functools import cache
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.maps import Maps
from stresslens.core.types import Count
from stresslens.plugins.explainers._baselines import baseline
from stresslens.plugins.explainers._passes import Of, pieces, score, slopes

WITHIN = 1e-3
MOST = 4096


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
    """The gradient integrated along the line from a start that says nothing, a grey by default
    black, to the image, times the way (Sundararajan et al. 2017): the map adds up to the difference
    between the answers at both ends.

    The integral is Gauss and Legendre's of `steps` points; an image whose map does not add up to
    within 0.1 % of the difference (or 0.001 where that is smaller than 1) is done again with twice
    as many, up to 4,096; a note says of how many it never does. Raises ConfigError for a mean
    without training images.
    """
    origin = baseline(x, start, train, "integrated_gradients")
    way = x - origin
    with torch.no_grad():
        ends = [torch.cat([score(model(p), own, of) for p, own in pieces(e, y)]) for e in (x, origin)]
    difference = (ends[0] - ends[1]).double()
    values = torch.zeros_like(x)
    left = torch.arange(len(x), device=x.device)
    while len(left) and steps <= MOST:
        values[left] = _integral(model, origin[left], way[left], y[left], of, steps)
        gap = (values[left].double().sum((1, 2, 3)) - difference[left]).abs()
        left = left[gap > WITHIN * difference[left].abs().clamp_min(1)]
        steps *= 2
    notes = (
        (f"of {len(left)} of {len(x)} maps the sum is more than 0.1 % off the difference of the answers",)
        if len(left)
        else ()
    )
    return Maps(values.sum(1).float().cpu(), True, f"share of the {of.replace('_', ' ')}'s difference", notes)


@cache
def _rule(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's nodes and weights; 2,048 of them take seconds."""
    return np.polynomial.legendre.leggauss(steps)


def _integral(model: nn.Module, origin: Tensor, way: Tensor, y: Tensor, of: Of, steps: int) -> Tensor:
    nodes, weights = _rule(steps)
    total = torch.zeros_like(way, dtype=torch.float64)
    for node, weight in zip((nodes + 1) / 2, weights / 2):
        total += weight * slopes(model, origin + float(node) * way, y, of)
    return (total * way).to(way.dtype)
