"""The convolution of our own is torch's: values, every derivative, a whole training; and its memory
is bounded."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresslens.plugins.models import _unfold
from stresslens.plugins.models._unfold import UnfoldConv2d, convolution
from stresslens.plugins.models.simple_net import simple_net

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).requires_grad_()


def test_one_patch_by_hand() -> None:
    """The lab's worked 5×5 * 3×3 example: its first cell is 7."""
    image = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
    x, weight = (
        torch.tensor(image).double()[None, None],
        torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]]).double()[None, None],
    )
    found = convolution(x, weight, torch.tensor([3.0]).double(), (1, 1), (0, 0))
    assert found[0, 0].tolist() == [[7, 6, 7], [5, 7, 6], [5, 6, 7]]


@pytest.mark.breadth(5)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3), (5, 1)], ids=str)
def test_derivatives_are_slopes(kernel: Any, stride: Any, padding: Any, bias: bool) -> None:
    inputs = [numbers(2, 2, 6, 5), numbers(3, 2, *kernel, seed=1), *([numbers(3, seed=2)] if bias else [])]
    assert torch.autograd.gradcheck(
        lambda x, weight, bias=None: convolution(x, weight, bias, stride, padding), inputs
    )


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 5),
    PAIRS,
    st.tuples(st.integers(3, 8), st.integers(3, 8)),
    PAIRS,
    PAIRS,
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.booleans(),
    st.sampled_from(["contiguous", "channels last", "every second", "transposed"]),
    st.sampled_from([1, 300, 2**20]),
)
def test_values_and_gradients_are_torchs(
    n: int,
    channels: Any,
    size: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    bias: bool,
    layout: str,
    most: int,
) -> None:
    x = numbers(n, channels[0], *size)
    laid = {
        "contiguous": lambda: x,
        "channels last": lambda: x.contiguous(memory_format=torch.channels_last),
        "every second": lambda: numbers(n, channels[0], size[0], 2 * size[1])[..., ::2],
        "transposed": lambda: numbers(n, channels[0], size[1], size[0]).mT,
    }[layout]()
    inputs = [laid.detach().requires_grad_(), numbers(channels[1], channels[0], *kernel, seed=1)]
    inputs += [numbers(channels[1], seed=2)] if bias else []
    own_bias = inputs[2] if bias else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_unfold, "NUMBERS", most)  # also image by image
        own = convolution(inputs[0], inputs[1], own_bias, stride, padding)
        slope = numbers(*own.shape, seed=3).detach()
        found = torch.autograd.grad(own, inputs, slope)
    theirs = F.conv2d(inputs[0], inputs[1], own_bias, stride, padding)
    assert own.shape == theirs.shape
    for mine, other in zip((own, *found), (theirs, *torch.autograd.grad(theirs, inputs, slope))):
        assert mine.shape == other.shape
        assert torch.allclose(mine, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_only_what_is_asked_for_is_derived(frozen: int) -> None:
    inputs = [numbers(2, 2, 5, 5), numbers(3, 2, 3, 3, seed=1), numbers(3, seed=2)]
    inputs[frozen].requires_grad_(False)
    asked = [each for each in inputs if each.requires_grad]
    found, theirs = (
        torch.autograd.grad(f(*inputs, (1, 1), (1, 1)).square().sum(), asked) for f in (convolution, F.conv2d)
    )
    assert all(torch.allclose(mine, other, atol=1e-10) for mine, other in zip(found, theirs))


def test_a_second_derivative_is_refused() -> None:
    x, weight = numbers(1, 1, 3, 3), numbers(1, 1, 2, 2)
    (slope,) = torch.autograd.grad(
        convolution(x, weight, None, (1, 1), (0, 0)).square().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_no_images_and_a_kernel_that_does_not_fit() -> None:
    assert convolution(torch.zeros(0, 2, 5, 5), torch.zeros(3, 2, 3, 3), None, (1, 1), (0, 0)).shape == (
        0,
        3,
        3,
        3,
    )
    with pytest.raises(ValueError, match="a kernel of 5×1 does not fit into 2×9 pixels padded by 1 and 0"):
        convolution(torch.zeros(1, 2, 2, 9), torch.zeros(3, 2, 5, 1), None, (1, 1), (1, 0))


def test_the_input_stays_as_it_is() -> None:
    """A kernel of one pixel reads the image without a copy."""
    x, weight = numbers(2, 3, 4, 4), numbers(3, 3, 1, 1)
    laid = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    before = laid.detach().clone()
    convolution(laid, weight, None, (1, 1), (0, 0)).sum().backward()
    assert torch.equal(laid, before)


@pytest.mark.parametrize("bias", [True, False])
def test_weights_of_one_load_into_the_other(bias: bool) -> None:
    torch.manual_seed(0)
    library = nn.Conv2d(2, 5, (3, 2), stride=2, padding=(1, 0), bias=bias)
    torch.manual_seed(0)
    own = UnfoldConv2d(2, 5, (3, 2), stride=2, padding=(1, 0), bias=bias)
    assert all(
        torch.equal(own.state_dict()[name], value) for name, value in library.state_dict().items()
    )  # the same start
    other = UnfoldConv2d(2, 5, (3, 2), stride=2, padding=(1, 0), bias=bias)
    other.load_state_dict(library.state_dict())
    x = torch.rand(3, 2, 9, 8)
    assert torch.allclose(other(x), library(x), atol=1e-6)
    library.load_state_dict(other.state_dict())


def test_autocast_is_torchs() -> None:
    torch.manual_seed(0)
    own, library = UnfoldConv2d(8, 16, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
    library.load_state_dict(own.state_dict())
    x = torch.rand(4, 8, 12, 12)
    slopes = []
    for conv in (own, library):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        assert y.dtype == torch.bfloat16
        y.float().square().mean().backward()
        slopes.append([conv.weight.grad, conv.bias.grad])
        assert conv.weight.grad.dtype == torch.float32
    for mine, other in zip(*slopes):
        assert torch.allclose(mine, other, atol=0.01 * float(other.abs().max()))


def test_the_backward_pass_has_kept_input_and_weights_alone() -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x, conv = torch.rand(5, 4, 16, 16).requires_grad_(), UnfoldConv2d(4, 3, 3, padding=1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        conv(x)
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr(), conv.weight.data_ptr()]


@pytest.mark.parametrize(("most", "at_once"), [(1, 1), (2 * 36 * 64, 2), (10**9, 5)])
def test_patches_of_so_many_images_stand_in_memory_at_once(
    most: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    unfold = _unfold._unfold

    def counting(x: Tensor, *others: Any) -> Tensor:
        seen.append(len(x))
        return unfold(x, *others)

    monkeypatch.setattr(_unfold, "NUMBERS", most)
    monkeypatch.setattr(_unfold, "_unfold", counting)
    UnfoldConv2d(4, 3, 3, padding=1)(torch.rand(5, 4, 8, 8)).sum().backward()
    assert max(seen) == at_once
    assert sum(seen) == 2 * 5  # once forwards, once backwards


def losses(
    conv: Literal["library", "unfold"], dtype: torch.dtype, memory_format: torch.memory_format
) -> Tensor:
    """Of 40 steps of momentum on images whose brightness is their class."""
    torch.manual_seed(0)
    net = simple_net((3, 16, 12), 4, conv=conv, channels=4, batch_norm=True).to(dtype=dtype)
    net = net.to(memory_format=memory_format)  # type: ignore[call-overload]
    y = torch.arange(8) % 4
    noise = torch.rand(40, 8, 3, 16, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (0.2 * noise + 0.2 * y[:, None, None, None]).to(dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    found = []
    for images in x:
        loss = F.cross_entropy(net(images.contiguous(memory_format=memory_format)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str)
def test_both_operators_have_the_same_loss_curve(
    dtype: torch.dtype, atol: float, memory_format: torch.memory_format
) -> None:
    library, own = (losses(conv, dtype, memory_format) for conv in ("library", "unfold"))  # type: ignore[arg-type]
    assert library[-1] < 0.6 * library[0]
    assert torch.allclose(own, library, rtol=0, atol=atol)
