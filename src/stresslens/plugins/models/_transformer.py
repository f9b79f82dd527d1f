"""Parts of vision transformers: patch embedding, attention (global or in windows), blocks,
pooling."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.layers import Dropout
from stresslens.core.types import Shape

Norm = Literal["pre", "post"]


class Tokens(nn.Module):
    """Patch embedding: images (N, C, H, W) → tokens (N, T, width) with position embeddings.

    The class token, if any, is the first. The others are row by row on `grid`. Sides that are not a
    multiple of the patch are padded with zeros on both sides.
    """

    def __init__(self, shape: Shape, patch: int, width: int, class_token: bool, position_std: float) -> None:
        super().__init__()
        channels, *sides = shape
        self.patch = nn.Conv2d(channels, width, patch, stride=patch)
        rows, columns = (-side % patch for side in sides)
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        self.grid = (-(-sides[0] // patch), -(-sides[1] // patch))
        count = self.grid[0] * self.grid[1] + class_token
        self.token = nn.Parameter(torch.randn(1, 1, width) * position_std) if class_token else None
        self.position = nn.Parameter(torch.randn(1, count, width) * position_std)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.patch(F.pad(x, self.padding)).flatten(2).transpose(1, 2)
        if self.token is not None:
            tokens = torch.cat([self.token.to(tokens.dtype).expand(x.shape[0], -1, -1), tokens], 1)
        return tokens + self.position


class Attention(nn.Module):
    """Multi-head self-attention over tokens (N, T, width), initialised as torch's
    MultiheadAttention."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, Dropout(dropout)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = (
            self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )  # (N, heads, T, d) each
        return self.out(self.mixed(q, k, v).transpose(1, 2).reshape(n, tokens, width))  # type: ignore[no-any-return]

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(N, heads, T, d) the attention-weighted mean of the values, for each token."""
        if self.training and self.dropout.p:
            return self.dropout(F.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)) @ v  # type: ignore[no-any-return]
        return F.scaled_dot_product_attention(q, k, v)


class WindowAttention(Attention):
    """Attention within windows of size×size tokens of a grid (Liu et al. 2021, never shifted).

    It has the parameters of `Attention`. If the grid's sides are not multiples of the window's, the
    grid is padded on the right and below with tokens that are never attended to.
    """

    real: Tensor | None

    def __init__(self, width: int, heads: int, grid: tuple[int, int], size: int) -> None:
        super().__init__(width, heads)
        self.grid = grid
        self.window = (min(size, grid[0]), min(size, grid[1]))
        self.missing = (-grid[0] % self.window[0], -grid[1] % self.window[1])
        whole = self._windows(self._padded(torch.ones(1, *grid, 1)))[..., 0] > 0  # (windows, tokens in each)
        self.register_buffer("real", whole if any(self.missing) else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        (rows, columns), (high, wide) = self.grid, self.window
        tokens = self._padded(x.reshape(x.shape[0], rows, columns, -1))
        n, down, across, width = tokens.shape
        windows = super().forward(self._windows(tokens))
        windows = windows.view(n, down // high, across // wide, high, wide, width)
        return windows.transpose(2, 3).reshape(tokens.shape)[:, :rows, :columns].flatten(1, 2)

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = None if self.real is None else self.real.repeat(len(q) // len(self.real), 1)[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, mask)

    def _padded(self, x: Tensor) -> Tensor:
        below, beside = self.missing
        return F.pad(x, (0, 0, 0, beside, 0, below))

    def _windows(self, x: Tensor) -> Tensor:
        """(N, rows, columns, C) → (N·windows, tokens in each, C)."""
        n, rows, columns, width = x.shape
        high, wide = self.window
        return (
            x.view(n, rows // high, high, columns // wide, wide, width)
            .transpose(2, 3)
            .reshape(-1, high * wide, width)
        )


class Block(nn.Module):
    """A transformer block: attention and an MLP of `mlp` units for each token, both residual.

    Both have dropout with probability `dropout`, or stochastic depth with probability `drop_path`.
    """

    def __init__(
        self,
        attention: Attention,
        width: int,
        mlp: int,
        norm: Norm = "pre",
        activation: str = "gelu",
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.before = norm == "pre"
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention
        act = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.mlp = nn.Sequential(nn.Linear(width, mlp), act, Dropout(dropout), nn.Linear(mlp, width))
        self.dropout1, self.dropout2 = (
            DropPath(drop_path) if drop_path else Dropout(dropout) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.dropout1(self.attention(self.norm1(x)))
            return x + self.dropout2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]
        x = self.norm1(x + self.dropout1(self.attention(x)))
        return self.norm2(x + self.dropout2(self.mlp(x)))  # type: ignore[no-any-return]


class DropPath(Dropout):
    """Stochastic depth (Huang et al. 2016): in training, a block adds nothing for some images.

    For the others its addition is scaled up, so that the mean does not change.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x.new_ones(x.shape[0], *[1] * (x.ndim - 1)))


class FirstToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class MeanToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)
