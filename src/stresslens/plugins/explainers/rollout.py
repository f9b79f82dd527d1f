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
    """Which patches the tokens that are read have been mixed from: the attention of every block,
    with the `residual` share that passes by it, multiplied from the first to the last (Abnar &
    Zuidema 2020). It is the same for every class.

    The rows are those of the class token, or without one their mean. Raises ConfigError for a model
    without attention over all tokens at once (windows of tokens are not followed).
    """
    found = []
    with torch.no_grad():
        model(
            x[:1]
        )  # encodes what is encoded once, the captions of a text side, whose attention is not meant
    for (part,) in pieces(x):
        with torch.no_grad(), _attended(model) as weights:
            model(part)
        if not weights or any(w.shape != weights[0].shape or len(w) != len(part) for w in weights):
            what = "attends within windows" if weights else "has no attention layers"
            raise ConfigError(
                f"rollout: the model {what}; it needs one that attends over all its tokens (a vision transformer)"
            )
        tokens = weights[0].shape[-1]
        mixed = torch.eye(tokens, device=x.device).expand(len(part), -1, -1)
        for each in weights:
            over = each.mean(1) if heads == "mean" else each.amax(1)
            step = (1 - residual) * over / over.sum(-1, keepdim=True) + residual * torch.eye(
                tokens, device=x.device
            )
            mixed = step @ mixed
        laid = grid(
            mixed.transpose(1, 2), nn.Identity(), part
        )  # what becomes of each patch: (N, to, rows, columns)
        if laid is None:
            raise ConfigError(
                f"rollout: {tokens} tokens cannot be laid out like an image of {x.shape[2]}×{x.shape[3]}"
            )
        extra = tokens - laid.shape[2] * laid.shape[3]
        read = laid[:, :1] if extra else laid.mean(1, keepdim=True)
        found.append(F.interpolate(read, x.shape[2:], mode="bilinear", align_corners=False)[:, 0])
    return Maps(torch.cat(found).float().cpu(), False, "share of what is read", ("the same for every class",))


@contextmanager
def _attended(model: nn.Module) -> Iterator[list[Tensor]]:
    """Fills with the attention (N, heads, T, T) of every layer, worked out from its queries and keys."""
    found: list[Tensor] = []

    def of_qkv(module: nn.Module, output: Tensor) -> None:
        heads = int(getattr(module, "num_heads", 0) or getattr(module, "heads", 0))
        n, tokens, width = output.shape
        q, k, _ = output.reshape(n, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
        q, k = (getattr(module, name, nn.Identity())(each) for name, each in (("q_norm", q), ("k_norm", k)))
        found.append((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1))

    def asked(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"need_weights": True, "average_attn_weights": False}

    handles: list[Any] = []
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            handles.append(module.register_forward_pre_hook(asked, with_kwargs=True))
            handles.append(module.register_forward_hook(lambda m, i, output: found.append(output[1])))
        elif isinstance(qkv := getattr(module, "qkv", None), nn.Linear) and (
            hasattr(module, "num_heads") or hasattr(module, "heads")
        ):
            handles.append(
                qkv.register_forward_hook(lambda m, i, output, module=module: of_qkv(module, output))
            )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
