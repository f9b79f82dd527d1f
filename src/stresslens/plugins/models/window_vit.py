from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from stresslens.core.types import Count, Decay, Natural, Shape
from stresslens.plugins.models._transformer import Attention, Block, MeanToken, Tokens, WindowAttention


def window_vit(
    shape: Shape,
    classes: int,
    *,
    patch: Count = 16,
    width: Count = 192,
    depth: Count = 4,
    heads: Count = 4,
    mlp_ratio: Count = 4,
    window: Count = 4,
    local: Sequence[Natural] = (0, 2),
    drop_path: Decay = 0.1,
) -> nn.Module:
    """A vision transformer with window attention in some blocks, for images of any size.

    The blocks in `local` (numbered from 0) attend only within windows of window×window tokens (Liu
    et al. 2021, never shifted). The others attend to all tokens; with `local: []` all do. The
    parameters are the same in both cases. Patches, position embeddings and norms are those of `vit`
    with `norm: pre` (Dosovitskiy et al. 2021). Each block has `mlp_ratio` times the width GELU
    units. The head is one linear layer on the mean over tokens. Tokens that pad a grid to whole
    windows are never attended to.

    `drop_path` is stochastic depth: in training, a block is left out for an image with a
    probability that rises linearly from 0 in the first block to `drop_path` in the last (Huang et
    al. 2016). For 100 classes of 128×128 colour photographs: 1,959,076 parameters.

    Raises ValueError if the heads do not divide the width, or if a local block does not exist.
    """
    if width % heads:
        raise ValueError(
            f"window_vit: {heads} heads do not divide a width of {width}; take a multiple of the heads"
        )
    if max(local, default=0) >= depth:
        raise ValueError(
            f"window_vit: local names block {max(local)}, "
            f"but the {depth} blocks are numbered from 0 to {depth - 1}"
        )
    tokens = Tokens(shape, patch, width, False, 0.02)

    def block(k: int) -> Block:
        attention = (
            WindowAttention(width, heads, tokens.grid, window) if k in local else Attention(width, heads)
        )
        return Block(attention, width, mlp_ratio * width, drop_path=drop_path * k / max(1, depth - 1))

    blocks = [block(k) for k in range(depth)]
    return nn.Sequential(tokens, *blocks, nn.LayerNorm(width), MeanToken(), nn.Linear(width, classes))
