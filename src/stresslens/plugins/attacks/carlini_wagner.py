from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Watch, batched_mean_logits, gradient, margins, narrowed
from stresslens.core.ball import L2Ball
from stresslens.core.errors import ConfigError
from stresslens.core.types import Count, NonNegative, Positive
from stresslens.plugins.attacks._minimal_perturbation import Smallest

STRETCH = 0.98
"""The tanh of a white pixel (black: minus this); at 1 it would have no gradient."""
BETAS, TINY = (0.9, 0.999), 1e-8
"""Parameters of Adam, which runs for each image (Kingma & Ba 2015)."""
GROWTH = 10.0


# long: options are spelled out, one a line, and the docstring says where the paper is left
def carlini_wagner(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: L2Ball,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    steps: Count = 200,
    searches: Count = 6,
    lr: Positive = 0.02,
    initial: Positive = 1.0,
    confidence: NonNegative = 0.0,
) -> Tensor:
    """Minimises the l2 perturbation: ‖δ‖² + c·max(margin + `confidence`, 0) (Carlini & Wagner
    2017).

    See section VI-A of the paper. For each of `searches` values of c, Adam takes `steps` steps in
    tanh space. c begins at `initial`, grows tenfold until the image is adversarial, and is then
    bisected, for each image separately. Returns the smallest adversarial image inside the ball, or
    else the best iterate inside it. It is not guaranteed to be the optimum.

    Difference from the paper: tanh is stretched by 1/0.98 and clamped, so that black and white
    pixels have finite coordinates and a gradient. Raises ConfigError for a norm other than l2.
    """
    if ball.norm != "l2":
        raise ConfigError(
            f"carlini_wagner is an attack of l2, not of {ball.norm}; "
            f"in {ball.norm} fab finds small perturbations"
        )
    smallest, alive = Smallest(x, y, ball, target), torch.arange(len(x), device=x.device)
    if not len(x):
        return x.clone()
    label = y if target is None else target

    def hinge(logits: Tensor, of: Tensor) -> Tensor:
        margin = margins(logits, of)
        return ((margin if target is None else -margin) + confidence).clamp_min(0)

    clean = batched_mean_logits(model, x)
    alive = alive[watch(alive, x, clean)]
    smallest.see(torch.arange(len(x), device=x.device), x, clean)
    weight, low, high = (
        torch.full((len(x),), value, dtype=x.dtype, device=x.device) for value in (initial, 0.0, torch.inf)
    )
    for search in range(searches):
        survives = torch.ones(len(x), dtype=torch.bool, device=x.device)
        fooled_with = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        rows, origin = alive, x[alive]
        w = torch.atanh((2 * (origin if start is None or search else start[alive]) - 1) * STRETCH)
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(1, steps + 1):
            if not len(rows):
                break
            tanh = torch.tanh(w)
            z = ((tanh / STRETCH + 1) / 2).clamp(0, 1)
            logits, value, grad = gradient(model, z, hinge, label[rows])
            keep = watch(rows, z, logits, None, grad)
            survives[rows[~keep]] = False
            fooled_with[rows[smallest.see(rows, z, logits) & (value <= 0)]] = True
            slope = (2 * (z - origin) + weight[rows].reshape(-1, 1, 1, 1) * grad) * (1 - tanh.square())
            first, second = (
                BETAS[0] * first + (1 - BETAS[0]) * slope,
                BETAS[1] * second + (1 - BETAS[1]) * slope.square(),
            )
            w = w - lr * (first / (1 - BETAS[0] ** step)) / ((second / (1 - BETAS[1] ** step)).sqrt() + TINY)
            remaining = narrowed(keep)
            if remaining is not None:
                rows, origin, w, first, second = (v[remaining] for v in (rows, origin, w, first, second))
        high = torch.where(fooled_with, torch.minimum(high, weight), high)
        low = torch.where(fooled_with, low, torch.maximum(low, weight))
        weight = torch.where(high.isinf(), low * GROWTH, (low + high) / 2)
        alive = alive[survives[alive]]
    return smallest.x_adv()
