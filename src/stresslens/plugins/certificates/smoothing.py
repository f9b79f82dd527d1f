from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.answers import NO_ANSWER, NOT_FINITE, predicted
from stresslens.core.attack_base import apart
from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.pass_memory import logits_in_pieces
from stresslens.core.types import Count, Positive, Share

BLOCK, BLOCK_VALUES = 256, 2**26
"""Noisy copies that are drawn together, at most so many and of so many values. They are constant, so
that an image's noise does not depend on other images or on the model."""
TRIED, DIFFERENT = 8, 0.01
"""Two passes over this many noisy copies must give logits that differ by less than this share of
their range; rounding is much less."""


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
    """Randomized smoothing: the certified l2 radius of the smoothed model, for each image.

    See Cohen, Rosenfeld & Kolter (2019), CERTIFY. The smoothed model predicts the class that the
    model predicts most often under Gaussian noise with standard deviation `sigma`, without clamping
    to the box. `n0` noisy copies choose the class, and `n` others give a lower bound of its
    probability (Clopper & Pearson), which is wrong with probability at most `alpha` for each image.
    The certificate is for the smoothed model, not for the model itself. x (N, C, H, W), y (N,) →
    (N,): NaN where it abstains, -inf where the prediction is not y. A noisy copy without an answer
    counts for no class; a Notice tells it. With `n` copies no radius beyond `largest_radius` can be
    certified, whatever the model. The objective `noisy` trains models for it. The bound holds for
    votes that are independent of each other: raises ConfigError for a model that is random, or whose
    logits of an image depend on the other images of the batch.
    """
    _check_votes_are_independent(model, x, sigma, draws.seed)
    radii = torch.full((len(x),), torch.nan, dtype=torch.float64)
    for k, index in enumerate(draws.index.tolist()):
        chosen = int(_votes(model, x[k], n0, sigma, mix(draws.seed, index, 0)).argmax())
        votes = int(_votes(model, x[k], n, sigma, mix(draws.seed, index, 1))[chosen])
        probability = lower_bound(votes, n, alpha)
        if probability > 0.5:
            radii[k] = sigma * torch.special.ndtri(torch.tensor(probability, dtype=torch.float64))
            if chosen != int(y[k]):
                radii[k] = -torch.inf
    return radii


def cost(*, n0: int, n: int) -> float:
    return (n0 + n) / 3


def largest_radius(*, sigma: float, n: int, alpha: float) -> float:
    """The radius of an image whose n copies all vote for one class: sigma · Φ⁻¹(α^(1/n)).

    Raises ConfigError, with the smallest n that is enough, if not even that is a certificate.
    """
    probability = lower_bound(n, n, alpha)
    if probability <= 0.5:
        least = math.floor(math.log(alpha) / math.log(0.5)) + 1
        raise ConfigError(
            f"smoothing with n: {n} and alpha: {alpha:g} can certify no image, even if all copies "
            f"agree; set n to {least} or more"
        )
    return sigma * float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


def _check_votes_are_independent(model: nn.Module, x: Tensor, sigma: float, seed: int) -> None:
    copies = next(_noisy(x[0], TRIED, sigma, seed))
    with torch.no_grad():
        together, again = model(copies.clone()), model(copies.clone())
        alone = torch.cat([model(one.clone()) for one in copies.split(1)])
    if bool((apart(together, again) > DIFFERENT).any()):
        raise ConfigError(
            "smoothing: the model is random, or remembers what it has seen: it gives other logits for the "
            "same images; put it into evaluation mode"
        )
    if bool((apart(together, alone) > DIFFERENT).any()):
        raise ConfigError(
            "smoothing: an image's logits depend on the other images of the batch, as with batch norm that "
            "uses the batch's statistics; the bound needs votes that are independent of each other"
        )


def lower_bound(votes: int, n: int, alpha: float) -> float:
    """The one-sided Clopper-Pearson lower bound of a proportion, at confidence 1 - alpha.

    For n of n votes it is α^(1/n).
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, votes, n - votes + 1)) if votes else 0.0


def _votes(model: nn.Module, image: Tensor, n: int, sigma: float, seed: int) -> Tensor:
    """(K,) how often each class is predicted for n noisy copies of one image (C, H, W). A copy
    without an answer counts for no class."""
    total: Tensor | None = None
    with torch.no_grad():
        for copies in _noisy(image, n, sigma, seed):
            logits = logits_in_pieces(model, copies)
            answers = predicted(logits)
            if bool((answers == NO_ANSWER).any()):
                warnings.warn(f"smoothing: noisy copies with {NOT_FINITE} count for no class", Notice, 2)
            votes = answers[answers != NO_ANSWER].bincount(minlength=logits.shape[1])
            total = votes if total is None else total + votes
    assert total is not None
    return total


def _noisy(image: Tensor, n: int, sigma: float, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator(image.device).manual_seed(seed)
    block = max(1, min(BLOCK, BLOCK_VALUES // image.numel()))
    for start in range(0, n, block):
        noise = torch.randn(block, *image.shape, generator=generator, device=image.device)
        yield image + sigma * noise[: n - start].to(image.dtype)
