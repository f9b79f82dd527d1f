from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from stresslens.core.layers import Dropout
from stresslens.core.types import Count, Decay, Positive, Shape
from stresslens.plugins.models._transformer import Attention, Block, FirstToken, MeanToken, Norm, Tokens


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

    Square patches of `patch` pixels become tokens of size `width`. Images whose sides are not a
    multiple of it are padded with zeros on both sides. Position embeddings are learned; they are
    initialised from N(0, position_std²). Each of `depth` blocks has attention with `heads` heads
    and an MLP of `mlp` units. `norm` is before both (`pre`, with one more at the end) or after both
    (`post`; Vaswani et al. 2017, like torch's TransformerEncoderLayer). The head, with hidden
    layers of `head` units and ReLU, reads a class token or the mean over tokens.

    Raises ValueError if the heads do not divide the width.
    """
    if width % heads:
        raise ValueError(f"vit: {heads} heads do not divide a width of {width}; take a multiple of the heads")
    blocks = [
        Block(Attention(width, heads, dropout), width, mlp, norm, activation, dropout) for _ in range(depth)
    ]
    sizes = [width, *head]
    hidden = [
        layer for fan_in, fan_out in pairwise(sizes) for layer in (nn.Linear(fan_in, fan_out), nn.ReLU())
    ]
    return nn.Sequential(
        Tokens(shape, patch, width, pool == "token", position_std),
        Dropout(dropout),
        *blocks,
        nn.LayerNorm(width) if norm == "pre" else nn.Identity(),
        FirstToken() if pool == "token" else MeanToken(),
        *hidden,
        nn.Linear(sizes[-1], classes),
    )
