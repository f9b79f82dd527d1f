"""Statistics of batch norm, computed anew for weights that are an average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from stresslens.core.data import Split
from stresslens.core.dtypes import device_of, image_dtype
from stresslens.core.inspection import evaluating

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def renew_statistics(
    model: nn.Module, norms: Sequence[nn.modules.batchnorm._BatchNorm], images: Split, *, batch_size: int
) -> None:
    """Computes the statistics of some of a model's layers of batch norm anew: the mean over batches of the
    images as they are, without augmentation and dropout (Izmailov et al. 2018, algorithm 1)."""
    momenta = [norm.momentum for norm in norms]
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None  # the mean of all batches
        if norms:
            for batch in images.batches(batch_size, dtype=image_dtype(model, images.shape)):
                model(batch.x.to(device_of(model)))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
