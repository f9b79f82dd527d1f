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
    """A vision transformer some of whose blocks attend only within windows of window×window tokens,
    for images of any size.

    `local` numbers those blocks from 0 (windows as in Liu et al. 2021, never shifted); the others
    attend to all tokens, and `local: []` makes all of them do so. The parameters are the same
    either way. Patches, position embeddings and norms are those of `vit` with its norm before
    (Dosovitskiy et al. 2021); each block has GELU units, `mlp_ratio` times the width; the head is
    one linear layer, behind the mean over tokens. Tokens that fill a grid up to whole windows are
    never attended to.

    In training, what a block adds is left out for an image with a chance that rises in equal steps
    from 0 in the first block to `drop_path` in the last (Huang et al. 2016). For 100 classes of
    128×128 colour photographs: 1,959,076 parameters.

    Raises ValueError where the heads do not divide the width, or for a local block that there is not.
    """
    if width % heads:
        raise ValueError(
            f"window_vit: {heads} heads do not divide a width of {width}; take a multiple of the heads"
        )
    if max(local, default=0) >= depth:
        raise ValueError(
            f"window_vit: local names block {max(local)}, but the {depth} blocks are numbered from 0 to {depth - 1}"
        )
    tokens = Tokens(shape, patch, width, False, 0.02)

    def block(place: int) -> Block:
        attention = (
            WindowAttention(width, heads, tokens.grid, window) if place in local else Attention(width, heads)
        )
        return Block(attention, width, mlp_ratio * width, drop_path=drop_path * place / max(1, depth - 1))

    blocks = [block(place) for place in range(depth)]
    return nn.Sequential(tokens, *blocks, nn.LayerNorm(width), MeanToken(), nn.Linear(width, classes))
