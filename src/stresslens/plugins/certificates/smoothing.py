from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.draws import Draws, mix
from stresslens.core.types import Count, Positive, Share

BLOCK = 256
"""Noisy copies that are made and passed through the model together: an image's noise is the same
whatever else is certified."""


def smoothing(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    norm: Literal["l2"] = "l2",
    sigma: Positive = 0.25,
    n0: Count = 100,
    n: Count = 10_000,
    alpha: Share = 0.001,
) -> Tensor:
    """The l2 radius within which the smoothed model keeps its answer, for each image (Cohen,
    Rosenfeld & Kolter 2019, CERTIFY).

    The smoothed model answers what the model answers most often under Gaussian noise of deviation
    `sigma`, which no box confines. `n0` noisy copies choose the class, `n` others bound its
    probability from below (Clopper & Pearson), wrong with probability at most `alpha` for each
    image. It certifies that model, not the plain one. x (N, C, H, W), y (N,) → (N,): NaN where it
    abstains, -inf where it answers another class than y. The objective `noisy` trains models for
    it.
    """
    radii = torch.full((len(x),), torch.nan, dtype=torch.float64)
    for place, index in enumerate(draws.index.tolist()):
        guess = int(_votes(model, x[place], n0, sigma, mix(draws.seed, index, 0)).argmax())
        votes = int(_votes(model, x[place], n, sigma, mix(draws.seed, index, 1))[guess])
        likely = lower_bound(votes, n, alpha)
        if likely > 0.5:
            radii[place] = sigma * torch.special.ndtri(torch.tensor(likely, dtype=torch.float64))
            if guess != int(y[place]):
                radii[place] = -torch.inf
    return radii


def lower_bound(votes: int, n: int, alpha: float) -> float:
    """The one-sided Clopper-Pearson bound of a proportion, exceeded with probability at least 1 -
    alpha; α^(1/n) for n of n."""
    from scipy.stats import beta

    return float(beta.ppf(alpha, votes, n - votes + 1)) if votes else 0.0


def _votes(model: nn.Module, image: Tensor, n: int, sigma: float, seed: int) -> Tensor:
    """(K,) how often each class is answered over n noisy copies of one image (C, H, W)."""
    total: Tensor | None = None
    with torch.no_grad():
        for copies in _noisy(image, n, sigma, seed):
            logits = model(copies)
            votes = logits.argmax(1).bincount(minlength=logits.shape[1])
            total = votes if total is None else total + votes
    assert total is not None
    return total


def _noisy(image: Tensor, n: int, sigma: float, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator(image.device).manual_seed(seed)
    for start in range(0, n, BLOCK):
        noise = torch.randn(BLOCK, *image.shape, generator=generator, device=image.device)
        yield image + sigma * noise[: n - start].to(image.dtype)
