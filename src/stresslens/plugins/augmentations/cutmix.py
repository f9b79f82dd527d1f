from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Chance, Positive
from stresslens.plugins.augmentations._box import box
from stresslens.plugins.augmentations._chance import chosen
from stresslens.plugins.augmentations._partners import beta, blended, partners, with_partners


def cutmix(
    x: Tensor, y: Tensor, draws: Draws, classes: int, *, alpha: Positive = 1.0, chance: Chance = 1.0
) -> tuple[Tensor, Tensor]:
    """CutMix: replaces a box of each image by that of another image of the batch (Yun et al. 2019).

    The labels are mixed by area. The box has the image's proportions and the area 1 - share, with
    the share from Beta(alpha, alpha). It is around a random position and may reach outside. Returns
    labels (N, K) as probabilities: the probability of an image's own label is the share of its
    pixels that are kept. Box and share are drawn for each image. Its partner is found as in
    `mixup`, so the result depends on which images are in the batch. An image gets a box with
    probability `chance`; the others are kept.
    """
    mask = chosen(draws, chance)[:, None]
    side, partner = (1 - beta(draws, alpha, x)).sqrt()[:, None].where(mask, 0), partners(draws)
    rows, columns = ((side * length).long() for length in x.shape[2:])
    kept = (~box(x, draws, rows, columns)).to(x.dtype)
    share = kept.sum((1, 2, 3)) / kept[0].numel()
    return with_partners(x, partner, kept), blended(y, partner, share, classes)
