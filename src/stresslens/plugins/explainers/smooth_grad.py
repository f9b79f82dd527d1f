from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.draws import Draws
from stresslens.core.maps import Maps
from stresslens.core.types import Count, Positive
from stresslens.plugins.explainers._passes import Of, slopes


def cost(*, samples: int) -> float:
    return samples


def smooth_grad(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    draws: Draws,
    *,
    samples: Count = 25,
    noise: Positive = 0.15,
    of: Of = "logit",
) -> Maps:
    """SmoothGrad: the mean gradient over `samples` noisy copies of the image (Smilkov et al. 2017).

    The map is its largest absolute value over the channels. `noise` is the standard deviation of
    the Gaussian noise, as a share of the image's range of values. An image's noise does not depend
    on the batch.
    """
    spread = noise * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))[:, None, None, None]
    total = torch.zeros_like(x)
    for _ in range(samples):
        total += slopes(model, x + spread * draws.normal(*x.shape[1:]).to(x), y, of)
    return Maps(
        (total / samples).abs().amax(1).float().cpu(),
        False,
        f"size of the {of.replace('_', ' ')}'s mean gradient",
    )
