"""Windows attend as torch's attention does on each by itself, nothing leaks between them, and the
rest is counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.layer_table import layer_table
from stresslens.plugins.explainers.rollout import rollout
from stresslens.plugins.models._transformer import Attention, DropPath, WindowAttention
from stresslens.plugins.models.window_vit import window_vit

PHOTOGRAPH = (3, 128, 128)


def torchs(own: Attention, width: int) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(width, own.heads, batch_first=True).to(own.qkv.weight.dtype)
    theirs.load_state_dict(
        {
            "in_proj_weight": own.qkv.weight,
            "in_proj_bias": own.qkv.bias,
            "out_proj.weight": own.out.weight,
            "out_proj.bias": own.out.bias,
        }
    )
    return theirs


def attention(grid: tuple[int, int], size: int, width: int = 12, heads: int = 3) -> WindowAttention:
    torch.manual_seed(0)
    own = WindowAttention(width, heads, grid, size).double()
    nn.init.normal_(own.qkv.bias)  # so that a token of zeros would be worth attending to
    return own


def test_global_attention_is_torchs() -> None:
    torch.manual_seed(0)
    own, x = Attention(12, 3).double(), torch.randn(4, 10, 12).double()
    assert torch.allclose(own(x), torchs(own, 12)(x, x, x)[0], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), size=st.integers(1, 5))
def test_each_window_is_torchs_attention_on_its_own_tokens(rows: int, columns: int, size: int) -> None:
    """Run window by window, the incomplete ones at the edges on the tokens they have."""
    own = attention((rows, columns), size)
    theirs = torchs(own, 12)
    x = torch.randn(2, rows * columns, 12, generator=torch.Generator().manual_seed(1)).double()
    found, laid = own(x).reshape(2, rows, columns, 12), x.reshape(2, rows, columns, 12)
    for top in range(0, rows, size):
        for left in range(0, columns, size):
            place = (slice(None), slice(top, top + size), slice(left, left + size))
            alone = laid[place].flatten(1, 2)
            expected = theirs(alone, alone, alone, need_weights=False)[0]
            assert torch.allclose(found[place].flatten(1, 2), expected, atol=1e-10)


def test_one_window_over_all_tokens_is_global_attention() -> None:
    own = attention((3, 5), 5)
    everywhere = Attention(12, 3).double()
    everywhere.load_state_dict(own.state_dict())
    x = torch.randn(2, 15, 12).double()
    assert torch.allclose(own(x), everywhere(x), atol=1e-12)


def test_a_pixel_changes_the_tokens_of_its_own_window_alone() -> None:
    torch.manual_seed(0)
    net = window_vit(
        (2, 24, 20), 3, patch=4, width=8, heads=2, window=2, depth=2, local=[0]
    ).eval()  # 6×5 tokens
    x = torch.rand(1, 2, 24, 20)
    other = x.clone()
    other[:, :, 9, 14] = 0  # of the token in row 2, column 3
    first, last = ((net[:depth](x) - net[:depth](other)).abs().sum(2).reshape(6, 5) > 0 for depth in (2, 3))
    window = torch.zeros(6, 5, dtype=torch.bool)
    window[2:4, 2:4] = True
    assert torch.equal(first, window)
    assert last.all()  # the second block attends to all


@pytest.mark.parametrize(("depth", "parameters"), [(4, 1_959_076), (6, 2_848_804)])
@pytest.mark.parametrize("local", [(), (0, 2)], ids=str)
def test_parameters_of_the_labs_transformer(depth: int, parameters: int, local: tuple[int, ...]) -> None:
    net = window_vit(PHOTOGRAPH, 100, depth=depth, local=local)
    embedding = (3 * 16 * 16 + 1) * 192 + 8 * 8 * 192
    block = (192 + 1) * 3 * 192 + (192 + 1) * 192 + (192 + 1) * 768 + (768 + 1) * 192 + 4 * 192
    assert embedding + depth * block + 2 * 192 + (192 + 1) * 100 == parameters
    assert layer_table(net, PHOTOGRAPH).parameters == parameters
    assert [type(block.attention) is WindowAttention for block in net[1:-3]] == [
        place in local for place in range(depth)
    ]


def test_weights_fit_whichever_blocks_are_local() -> None:
    shape, options = (1, 20, 20), {"patch": 4, "width": 8, "heads": 2, "window": 2}
    nets = [window_vit(shape, 3, local=local, **options).eval() for local in ([], [0, 2])]  # type: ignore[arg-type]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.rand(2, *shape)
    assert not torch.allclose(nets[0](x), nets[1](x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "5 heads do not divide a width of 192"),
        ({"depth": 2}, "local names block 2, but the 2 blocks are numbered from 0 to 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        window_vit(PHOTOGRAPH, 10, **options)


def test_rollout_follows_blocks_that_attend_to_all_and_refuses_windows() -> None:
    x = torch.rand(2, 1, 16, 24)
    options: dict[str, Any] = {"patch": 4, "width": 8, "heads": 2, "depth": 2, "window": 2}
    assert rollout(window_vit((1, 16, 24), 3, local=[], **options).eval(), x).values.shape == (2, 16, 24)
    with pytest.raises(ConfigError, match="attends over all its tokens"):
        rollout(window_vit((1, 16, 24), 3, local=[0, 1], **options).eval(), x)


# --- stochastic depth ---------------------------------------------------------------------------------------


def test_drop_path_leaves_out_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.rand(20_000, 3, 2) + 1
    y = DropPath(0.3).train()(x)
    dropped = (y == 0).flatten(1)
    assert torch.equal(dropped.all(1), dropped.any(1))
    assert torch.allclose(y[~dropped[:, 0]], x[~dropped[:, 0]] / 0.7)
    assert abs(float(dropped[:, 0].double().mean()) - 0.3) < 0.013  # four standard errors
    assert torch.equal(DropPath(0.3).eval()(x), x)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_chance_rises_from_0_in_equal_steps(depth: int) -> None:
    net = window_vit((1, 16, 16), 2, patch=4, width=8, heads=2, depth=depth, local=[], drop_path=0.3)
    chances = [block.dropout1.p for block in net[1:-3]]
    assert chances == pytest.approx([0.0] if depth == 1 else [0.3 * k / (depth - 1) for k in range(depth)])
    assert chances == [block.dropout2.p for block in net[1:-3]]


def test_the_seed_decides_what_is_dropped() -> None:
    net = window_vit((1, 16, 16), 2, patch=4, width=8, heads=2, drop_path=0.5).train()
    x = torch.rand(1, 1, 16, 16).expand(16, -1, -1, -1)

    def logits(seed: int) -> Tensor:
        torch.manual_seed(seed)
        found: Tensor = net(x)
        return found

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))
    assert len(logits(1).unique(dim=0)) > 1  # the same image, with different blocks


def test_autocast_attends_in_windows_that_are_not_full() -> None:
    torch.manual_seed(0)
    net = window_vit((1, 20, 12), 3, patch=4, width=16, heads=2, window=2).train()
    x, y = torch.rand(4, 1, 20, 12), torch.tensor([0, 1, 2, 0])
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(net(x), y)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert float(loss.detach()) == pytest.approx(float(F.cross_entropy(net.eval()(x), y).detach()), abs=0.3)
