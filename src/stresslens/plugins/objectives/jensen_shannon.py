from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.dtypes import at_least_float32
from stresslens.core.types import Augmentation, Loss, NonNegative, PluginOption, Step
from stresslens.plugins.objectives._views import views_of


def jensen_shannon(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: Step,
    *,
    loss: PluginOption[Loss] = "cross_entropy",
    augmentation: PluginOption[Augmentation] = "augmix",
    weight: NonNegative = 12.0,
) -> Tensor:
    """The loss, plus `weight` times the Jensen-Shannon divergence of the answers to an image and to two
    augmented versions of it (Hendrycks et al. 2020, AugMix, eq. 1 and 2).

    The divergence is the mean of KL(p ‖ m) over the three softmax distributions p and their mean m. The
    images are those behind `train.augment`, so put flips and crops there, and AugMix here. A step
    passes three times as many images through the net. Raises ConfigError for an augmentation that mixes
    labels or changes the size.
    """
    logits = model(torch.cat([x, *views_of(x, y, augmentation, step)])).chunk(3)
    log_p = [F.log_softmax(at_least_float32(each), 1) for each in logits]
    log_mean = torch.stack(log_p).logsumexp(0) - torch.tensor(3.0, device=x.device).log()
    of_each = [F.kl_div(log_mean, each, reduction="batchmean", log_target=True) for each in log_p]
    return loss(logits=logits[0], y=y) + weight * torch.stack(of_each).mean()


def has_softmax() -> bool:
    return True
