"""Kernels without what sees only padding: the same values and gradients, to rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from stresslens.core.copies import copied, departure, fast_copy, responses
from stresslens.core.cropped_kernels import CroppedConv2d, crop_kernels, seen_taps, whole_kernels

SMALL = st.integers(1, 5)


@settings(deadline=None)
@given(SMALL, SMALL, SMALL, st.integers(1, 3), st.integers(0, 4), st.integers(1, 3), st.integers(1, 2))
def test_values_and_gradients_are_the_same(
    height: int, width: int, kernel: int, stride: int, padding: int, dilation: int, groups: int
) -> None:
    assume(min(height, width) + 2 * padding >= dilation * (kernel - 1) + 1)
    torch.manual_seed(0)
    whole = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups).double()
    cropped = copied(whole)
    cropped.__class__ = CroppedConv2d
    x = torch.randn(3, 2, height, width, dtype=torch.double)
    found = []
    for layer in (whole, cropped):
        point = x.clone().requires_grad_()
        values = layer(point)
        values.square().sum().backward()
        found.append([values, point.grad, *(parameter.grad for parameter in layer.parameters())])
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 3), st.integers(0, 5), st.integers(1, 3))
def test_what_is_left_out_sees_nothing_and_its_ends_see_something(
    side: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    assume(side + 2 * padding >= dilation * (kernel - 1) + 1)
    layer = nn.Conv2d(1, 1, (kernel, 1), (stride, 1), (padding, 0), (dilation, 1), bias=False)
    layer(torch.ones(1, 1, side, 1)).sum().backward()
    assert layer.weight.grad is not None
    sees = layer.weight.grad[0, 0, :, 0] > 0
    part, _, _ = seen_taps(layer, 0, side)
    if sees.any():
        places = sees.nonzero()[:, 0]
        assert part == slice(int(places[0]), int(places[-1]) + 1)
    else:
        assert part == slice(0, kernel)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4)),
        *(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(5, 6, 3, padding=1), nn.Flatten(), nn.Linear(6, 3)),
    )


def test_only_layers_with_kernels_beyond_their_maps_change() -> None:
    """Maps of 8×8, 2×2 and 1×1: only the last kernel has rows and columns that see nothing."""
    own, x = net(), torch.rand(3, 1, 8, 8)
    expected, before = responses(own, x), copied(own)
    assert crop_kernels(own, x) == [own[6]]
    assert [type(own[k]) for k in (0, 3, 6)] == [nn.Conv2d, nn.Conv2d, CroppedConv2d]
    assert not departure(expected, responses(own, x))
    assert repr(own) == repr(before)
    assert list(own.state_dict()) == list(before.state_dict())
    whole_kernels(own)
    assert type(own[6]) is nn.Conv2d
    assert torch.equal(own(x), before(x))


def test_other_sizes_pass_a_cropped_net() -> None:
    own, large = net(), torch.rand(3, 1, 16, 16)
    crop_kernels(own, torch.rand(3, 1, 8, 8))
    body, plain = own[:7], net()[:7]
    assert torch.allclose(body(large), plain(large), atol=1e-6)


@pytest.mark.parametrize("kind", ["hooked", "replaced", "circular", "same"])
def test_layers_that_are_not_plain_stay(kind: str) -> None:
    own, x = net(), torch.rand(3, 1, 8, 8)
    if kind == "hooked":
        own[6].register_forward_hook(lambda module, inputs, output: 2 * output)
    elif kind == "replaced":
        own[6].forward = own[6].forward
    else:
        own[6] = nn.Conv2d(5, 6, 3, padding="same" if kind == "same" else 1, padding_mode="zeros")
        own[6].padding_mode = "zeros" if kind == "same" else "circular"
        own[6]._reversed_padding_repeated_twice = [1, 1, 1, 1]
    assert crop_kernels(own, x) == []


def test_copies_for_many_passes_have_cropped_kernels() -> None:
    x = torch.rand(3, 1, 8, 8)
    own = net()
    copy = fast_copy(own, x)
    assert any(type(module) is CroppedConv2d for module in copy.modules())
    assert not any(type(module) is CroppedConv2d for module in own.modules())
    assert not departure(responses(own, x), responses(copy, x))
