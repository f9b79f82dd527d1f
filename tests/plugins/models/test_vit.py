"""The transformer's block is torch's, its tokens are the patches, and its parameters can be counted
by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stresslens.core.layer_table import layer_table
from stresslens.plugins.models._transformer import Attention, Block
from stresslens.plugins.models.first_cnn import first_cnn
from stresslens.plugins.models.vit import vit

MNIST = (1, 28, 28)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_is_torchs_encoder_layer(norm: Any) -> None:
    torch.manual_seed(0)
    own = Block(Attention(16, 4), 16, 24, norm, "relu")
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, "relu", batch_first=True, norm_first=norm == "pre")
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": own.attention.qkv.weight,
            "self_attn.in_proj_bias": own.attention.qkv.bias,
            "self_attn.out_proj.weight": own.attention.out.weight,
            "self_attn.out_proj.bias": own.attention.out.bias,
            **{
                f"linear{k}.{part}": getattr(own.mlp[place], part)
                for k, place in ((1, 0), (2, 3))
                for part in ("weight", "bias")
            },
            **{
                f"norm{k}.{part}": getattr(getattr(own, f"norm{k}"), part)
                for k in (1, 2)
                for part in ("weight", "bias")
            },
        }
    )
    x = torch.randn(3, 5, 16)
    assert torch.allclose(own(x), theirs(x), atol=1e-6)


@pytest.mark.parametrize(("pool", "tokens"), [("token", 17), ("mean", 16)])
def test_parameters_of_the_labs_transformer(pool: Any, tokens: int) -> None:
    net = vit(
        MNIST,
        10,
        patch=7,
        norm="post",
        pool=pool,
        activation="relu",
        dropout=0.1,
        position_std=1.0,
        head=[256],
    )
    embedding = (49 + 1) * 128 + tokens * 128 + (128 if pool == "token" else 0)
    block = (128 + 1) * 384 + (128 + 1) * 128 + (128 + 1) * 256 + (256 + 1) * 128 + 4 * 128
    head = (128 + 1) * 256 + (256 + 1) * 10
    table = layer_table(net, MNIST)
    assert table.parameters == embedding + 6 * block + head
    assert net(torch.zeros(2, *MNIST)).shape == (2, 10)


def test_a_token_sees_its_own_patch_alone() -> None:
    torch.manual_seed(0)
    tokens = vit((2, 8, 12), 3, patch=4, width=8, heads=2, pool="mean")[0].eval()
    x = torch.rand(1, 2, 8, 12)
    other = x.clone()
    other[:, :, 4:, 8:] = 0  # the last of 2×3 patches
    changed = (tokens(x) - tokens(other)).abs().sum(2)[0] > 0
    assert changed.tolist() == [False] * 5 + [True]


def test_sides_that_are_no_multiple_are_padded_on_both_sides() -> None:
    tokens = vit((1, 13, 12), 3, patch=4, width=8, heads=2, pool="mean")[0]
    assert tokens.padding == (0, 0, 1, 2)
    assert tokens(torch.zeros(1, 1, 13, 12)).shape == (1, 4 * 3, 8)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide a width of 16"):
        vit(MNIST, 10, width=16, heads=3)


def test_first_cnn_on_cifar10() -> None:
    shape = (3, 32, 32)
    counted = (3 * 9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (64 * 16 + 1) * 64 + (64 + 1) * 10
    assert layer_table(first_cnn(shape, 10), shape).parameters == counted == 89_834
