from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.inspection import grid
from stresslens.core.maps import Maps
from stresslens.core.types import Decay
from stresslens.plugins.explainers._passes import pieces


def rollout(
    model: nn.Module, x: Tensor, *, heads: Literal["mean", "max"] = "mean", residual: Decay = 0.5
) -> Maps:
    """Attention rollout: how much each patch contributes to the tokens that the head reads.

    The attention matrices of all blocks, each mixed with the identity by the `residual` share, are
    multiplied from the first block to the last (Abnar & Zuidema 2020). The map is the same for
    every class. It is the row of the class token, or without one the mean row. Raises ConfigError
    for a model without attention over all tokens at once (attention within windows is not
    supported).
    """
    maps = []
    with torch.no_grad():
        model(x[:1])  # models with a text side encode their captions here; that attention is not wanted
    for (part,) in pieces(x):
        with torch.no_grad(), _attention_weights(model) as weights:
            model(part)
        if not weights or any(w.shape != weights[0].shape or len(w) != len(part) for w in weights):
            what = "attends within windows" if weights else "has no attention layers"
            raise ConfigError(
                f"rollout: the model {what}; "
                "rollout needs one that attends over all its tokens (a vision transformer)"
            )
        tokens = weights[0].shape[-1]
        mixed = torch.eye(tokens, device=x.device).expand(len(part), -1, -1)
        for attention in weights:
            over_heads = attention.mean(1) if heads == "mean" else attention.amax(1)
            identity = torch.eye(tokens, device=x.device)
            step = (1 - residual) * over_heads / over_heads.sum(-1, keepdim=True) + residual * identity
            mixed = step @ mixed
        by_patch = grid(mixed.transpose(1, 2), nn.Identity(), part)  # (N, to, rows, columns)
        if by_patch is None:
            raise ConfigError(
                f"rollout: {tokens} tokens cannot be laid out like an image of {x.shape[2]}×{x.shape[3]}"
            )
        extra = tokens - by_patch.shape[2] * by_patch.shape[3]
        read = by_patch[:, :1] if extra else by_patch.mean(1, keepdim=True)
        maps.append(F.interpolate(read, x.shape[2:], mode="bilinear", align_corners=False)[:, 0])
    return Maps(torch.cat(maps).float().cpu(), False, "share of what is read", ("the same for every class",))


@contextmanager
def _attention_weights(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that a forward pass fills with the attention (N, heads, T, T) of every layer."""
    collected: list[Tensor] = []

    def of_qkv(module: nn.Module, output: Tensor) -> None:
        heads = int(getattr(module, "num_heads", 0) or getattr(module, "heads", 0))
        n, tokens, width = output.shape
        q, k, _ = output.reshape(n, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
        q, k = getattr(module, "q_norm", nn.Identity())(q), getattr(module, "k_norm", nn.Identity())(k)
        collected.append((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1))

    def with_weights(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"need_weights": True, "average_attn_weights": False}

    handles: list[Any] = []
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            handles.append(module.register_forward_pre_hook(with_weights, with_kwargs=True))
            handles.append(module.register_forward_hook(lambda m, i, output: collected.append(output[1])))
        elif isinstance(qkv := getattr(module, "qkv", None), nn.Linear) and (
            hasattr(module, "num_heads") or hasattr(module, "heads")
        ):
            handles.append(
                qkv.register_forward_hook(lambda m, i, output, module=module: of_qkv(module, output))
            )
    try:
        yield collected
    finally:
        for handle in handles:
            handle.remove()
