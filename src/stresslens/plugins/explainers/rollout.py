from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.center_crop import enlarged, seen_part
from stresslens.core.maps import Maps
from stresslens.core.types import Decay
from stresslens.plugins.explainers._attention import Attention, attentions, tokens_of


def rollout(
    model: nn.Module, x: Tensor, *, heads: Literal["mean", "max"] = "mean", residual: Decay = 0.5
) -> Maps:
    """Attention rollout: how much each patch contributes to the tokens that the head reads.

    The attention matrices of all blocks, each mixed with the identity by the `residual` share, are
    multiplied from the first block to the last (Abnar & Zuidema 2020). They are those with which
    the model multiplies its values, however it computes them. The map is the same for every class.
    It is the mean row of the tokens that the head reads, such as the class token. Raises
    ConfigError for a model whose attention is not over all tokens at once (windows, channels, other
    tokens), whose weights do not add up to 1, or that mixes its tokens between the blocks.
    """
    rows = []
    with attacked(model):  # without gradients of parameters, only activations have a gradient
        tokens = tokens_of(model, x)
        for image in x.split(1):
            mixed = torch.eye(len(tokens.read), device=x.device)
            for attention in attentions(model, image)[0]:
                mixed = _step(attention, heads, residual) @ mixed
            rows.append(mixed[tokens.read].mean(0)[tokens.of_image])
    read = torch.stack(rows).unflatten(1, tokens.layout.sides)[:, None]
    sides = (x.shape[2], x.shape[3])
    values = enlarged(read, seen_part(model, sides), sides)
    return Maps(values.float().cpu(), False, "share of what is read", ("the same for every class",))


def _step(attention: Attention, heads: Literal["mean", "max"], residual: float) -> Tensor:
    """(T, T) the attention over all heads, mixed with the identity."""
    weights = attention.weights.float()
    over_heads = weights.mean(0) if heads == "mean" else weights.amax(0)
    identity = torch.eye(len(over_heads), device=over_heads.device)
    return (1 - residual) * over_heads / over_heads.sum(-1, keepdim=True) + residual * identity
