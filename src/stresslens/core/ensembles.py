"""Ensembles of classifiers as one torch module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Average = Literal["probabilities", "logits"]


class Ensemble(nn.Module):
    """Several classifiers of the same classes: images (N, C, H, W) in [0, 1] → logits (N, K).

    With `average: probabilities` the logits are the logarithm of the mean softmax of the members
    (Lakshminarayanan et al. 2017), with `logits` they are the mean of the members' logits. The logits of
    a member are first divided by its temperature, which is 1 unless it is set. The gradient flows through
    every member.
    """

    temperatures: Tensor

    def __init__(self, members: Sequence[nn.Module], average: Average = "probabilities") -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.average = average
        self.joint = nn.Identity()
        """Gets and gives the logits of all members, (N, M·K): the features of the ensemble."""
        self.register_buffer("temperatures", torch.ones(len(members)))

    def forward(self, x: Tensor) -> Tensor:
        stacked = torch.stack([member(x).to(x) for member in self.members], 1)  # (N, M, K)
        each: Tensor = self.joint(stacked.flatten(1)).unflatten(1, stacked.shape[1:])
        each = each / self.temperatures.to(each)[:, None]
        if self.average == "logits":
            return each.mean(1)
        return each.log_softmax(2).logsumexp(1) - math.log(len(self.members))

    def extra_repr(self) -> str:
        return f"mean of {self.average}"


def ensemble_in(model: nn.Module) -> Ensemble | None:
    """The ensemble in a model; None where it is another model."""
    return next((part for part in model.modules() if isinstance(part, Ensemble)), None)
