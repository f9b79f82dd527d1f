from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.layers import Dropout
from stresslens.core.types import Count, Decay, Positive, Shape

Norm = Literal["pre", "post"]


def vit(
    shape: Shape,
    classes: int,
    *,
    patch: Count = 4,
    width: Count = 128,
    depth: Count = 6,
    heads: Count = 8,
    mlp: Count = 256,
    norm: Norm = "pre",
    pool: Literal["token", "mean"] = "token",
    activation: Literal["gelu", "relu"] = "gelu",
    dropout: Decay = 0.0,
    position_std: Positive = 0.02,
    head: Sequence[Count] = (),
) -> nn.Module:
    """A vision transformer (Dosovitskiy et al. 2021) for images of any size.

    Square patches of `patch` pixels become tokens of `width` numbers; images whose sides are no multiple of it are padded with
    zeros on both sides. Position embeddings are learnt, drawn from N(0, position_std²). Each of `depth` blocks has attention of so
    many `heads` and a layer of `mlp` units; `norm` stands before each of the two (with one more at the end) or after (Vaswani et
    al. 2017, as torch's TransformerEncoderLayer). The head, with hidden layers of `head` units and ReLU, reads a class token of its
    own or the mean over tokens.

    Raises ValueError where the heads do not divide the width.
    """
    if width % heads:
        raise ValueError(f"vit: {heads} heads do not divide a width of {width}; take a multiple of the heads")
    blocks = [_Block(width, heads, mlp, norm, activation, dropout) for _ in range(depth)]
    sizes = [width, *head]
    hidden = [layer for fan_in, fan_out in pairwise(sizes) for layer in (nn.Linear(fan_in, fan_out), nn.ReLU())]
    return nn.Sequential(
        _Tokens(shape, patch, width, pool == "token", position_std),
        Dropout(dropout),
        *blocks,
        nn.LayerNorm(width) if norm == "pre" else nn.Identity(),
        _Token() if pool == "token" else _Mean(),
        *hidden,
        nn.Linear(sizes[-1], classes),
    )


class _Tokens(nn.Module):
    """Images (N, C, H, W) → tokens (N, T, width) that know their places, the class token first."""

    def __init__(self, shape: Shape, patch: int, width: int, class_token: bool, position_std: float) -> None:
        super().__init__()
        channels, *sides = shape
        self.patch = nn.Conv2d(channels, width, patch, stride=patch)
        rows, columns = (-side % patch for side in sides)
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        count = (-(-sides[0] // patch)) * (-(-sides[1] // patch)) + class_token
        self.token = nn.Parameter(torch.randn(1, 1, width) * position_std) if class_token else None
        self.position = nn.Parameter(torch.randn(1, count, width) * position_std)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.patch(F.pad(x, self.padding)).flatten(2).transpose(1, 2)
        if self.token is not None:
            tokens = torch.cat([self.token.to(tokens.dtype).expand(x.shape[0], -1, -1), tokens], 1)
        return tokens + self.position


class _Block(nn.Module):
    """Attention and a layer of units for each token, each added to what it was given."""

    def __init__(self, width: int, heads: int, mlp: int, norm: Norm, activation: str, dropout: float) -> None:
        super().__init__()
        self.before = norm == "pre"
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads, dropout)
        act = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.mlp = nn.Sequential(nn.Linear(width, mlp), act, Dropout(dropout), nn.Linear(mlp, width))
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.dropout1(self.attention(self.norm1(x)))
            return x + self.dropout2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]
        x = self.norm1(x + self.dropout1(self.attention(x)))
        return self.norm2(x + self.dropout2(self.mlp(x)))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Multi-head self-attention over tokens (N, T, width), initialised as torch's MultiheadAttention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # (N, heads, T, d) each
        if self.training and self.dropout.p:
            mixed = self.dropout(F.softmax(q @ k.mT / math.sqrt(width // self.heads), -1)) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, width))  # type: ignore[no-any-return]


class _Token(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)
