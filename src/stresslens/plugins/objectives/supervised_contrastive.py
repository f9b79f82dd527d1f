from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.inspection import feature_layer, with_features
from stresslens.core.types import Augmentation, Loss, NonNegative, PluginOption, Positive, Step
from stresslens.plugins.objectives._views import views_of


def supervised_contrastive(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: Step,
    *,
    loss: PluginOption[Loss] = "cross_entropy",
    augmentation: PluginOption[Augmentation] = "rand_augment",
    temperature: Positive = 0.1,
    weight: NonNegative = 1.0,
) -> Tensor:
    """The loss, plus `weight` times the supervised contrastive loss of two versions of each image (Khosla
    et al. 2020, eq. 2).

    The features, of length 1, are what the last layer gets. Each version of an image is drawn towards
    all versions of images of its class, and away from the others. The paper trains features with a
    projection network first and the last layer afterwards; here both are trained together, without one.
    Raises ConfigError for mixed labels, and for an augmentation that mixes labels or changes the size.
    """
    if y.ndim != 1:
        raise ConfigError("objective supervised_contrastive takes one label an image; leave mixup out")
    images = torch.cat(views_of(x, y, augmentation, step))
    logits, features = with_features(model, _layer(model, tuple(x.shape[1:])), images)
    labels = y.repeat(2)
    return loss(logits=logits, y=labels) + weight * contrast(features, labels, temperature)


def contrast(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The loss L_out of features (M, D) with labels (M,): the mean over all of the mean over others of the
    same class of -log softmax of the similarities to all others. Every label occurs twice at least."""
    z = F.normalize(features, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_p = F.log_softmax((z @ z.t() / temperature).masked_fill(itself, -torch.inf), 1)
    same = (labels[:, None] == labels) & ~itself
    return -(log_p.masked_fill(~same, 0).sum(1) / same.sum(1)).mean()


@lru_cache(maxsize=1)
def _layer(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """The layer that features are from; looked up once for each net."""
    return feature_layer(model, shape)[0]


def has_softmax() -> bool:
    return True
