from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Positive
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._partners import beta, blended, partners, with_partners


def mixup(
    x: Tensor, y: Tensor, draws: Draws, classes: int, *, alpha: Positive = 0.2, chance: Chance = 1.0
) -> tuple[Tensor, Tensor]:
    """Mixup: blends each image and its label with another of the batch (Zhang et al. 2018).

    The share is drawn from Beta(alpha, alpha) for each image. Returns labels (N, K) as
    probabilities. The partner is the next image in a random order; therefore, unlike in other
    augmentations, the result depends on which images are in the batch. An image is blended with
    probability `chance`; the others are kept.
    """
    mask = chosen(draws, chance)
    share, partner = beta(draws, alpha, x).where(mask, 1), partners(draws)
    return with_partners(x, partner, share[:, None, None, None]), blended(y, partner, share, classes)
