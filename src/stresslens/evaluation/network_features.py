"""The features of a network: the inputs of its last linear layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stresslens.core.dtypes import as_input
from stresslens.core.inspection import evaluating, feature_layer, with_features
from stresslens.core.pass_memory import images_at_once
from stresslens.core.types import Shape

OfNetwork = Callable[[Tensor], Tensor]


def features_of_network(model: nn.Module, shape: Shape) -> OfNetwork:
    """A function from images (n, C, H, W) in [0, 1] to the inputs of the model's last linear layer
    (n, D), as float32 on the CPU."""
    layer, _ = feature_layer(model, shape)

    def features(x: Tensor) -> Tensor:
        size = images_at_once(model, shape, len(x))
        with evaluating(model), torch.no_grad():
            parts = [with_features(model, layer, as_input(part, model))[1] for part in torch.split(x, size)]
        return torch.cat(parts).cpu().float()

    return features
