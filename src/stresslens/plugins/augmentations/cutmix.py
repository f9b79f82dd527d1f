from __future__ import annotations

from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.types import Positive
from stresslens.plugins.augmentations._box import box
from stresslens.plugins.augmentations._partners import beta, blended, partners


def cutmix(
    x: Tensor, y: Tensor, draws: Draws, classes: int, *, alpha: Positive = 1.0
) -> tuple[Tensor, Tensor]:
    """Fills a box of each image with the same box of another of the batch, and mixes their labels
    by area (Yun et al. 2019).

    The box has the image's proportions and the area 1 - share, with the share from Beta(alpha,
    alpha). It lies around a random place and may reach outside. Returns labels (N, K) as
    probabilities: an image's own is the share of pixels it has kept. Box and share are its own
    draws; its partner is found as in `mixup`, so the result depends on which images are batched
    together.
    """
    side, partner = (1 - beta(draws, alpha, x)).sqrt()[:, None], partners(draws)
    rows, columns = ((side * length).long() for length in x.shape[2:])
    filled = box(x, draws, rows, columns)
    kept = (~filled).sum((1, 2, 3)).to(x.dtype) / filled[0].numel()
    return x[partner].where(filled, x), blended(y, partner, kept, classes)
