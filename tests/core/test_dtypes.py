from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mixed_dtypes import EITHER, SHAPE, TAKEN, Unmatched, made
from torch import nn

from stresslens.core.dtypes import as_input, float_dtypes, image_dtype, in_dtype, keep_own_dtypes
from stresslens.core.errors import ConfigError

every = pytest.mark.parametrize("net", TAKEN, ids=lambda net: net.__name__)


@every
def test_images_have_the_dtype_that_a_net_takes(net: Callable[[], nn.Module]) -> None:
    model = made(net).train()
    found = image_dtype(model, SHAPE)
    assert net in EITHER or found == TAKEN[net]
    x = as_input(torch.rand(3, *SHAPE), model)
    assert x.dtype == found
    assert model(x).shape == (3, 4)
    assert all(module.training for module in model.modules())


def test_a_pass_that_tries_a_dtype_leaves_buffers_and_random_numbers_as_they_are() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("wide", torch.zeros((), dtype=torch.float64))
            self.head = nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls = self.calls + 1
            return self.head(x.flatten(1) + 0 * torch.rand(1))

    model = Counts()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert image_dtype(model, SHAPE) == torch.float32
    assert torch.equal(torch.rand(4), expected)
    assert float(model.calls) == 0


def test_the_dtype_follows_a_module_that_is_cast() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 4).double())
    with pytest.raises(ConfigError):
        image_dtype(model, SHAPE)
    assert image_dtype(model.float(), SHAPE) == torch.float32
    assert image_dtype(model.double(), SHAPE) == torch.float64
    assert image_dtype(model.half(), SHAPE) == torch.float16


def test_a_module_without_floating_point_numbers_takes_images_as_they_are() -> None:
    x = torch.rand(2, *SHAPE, dtype=torch.float64)
    assert as_input(x, nn.Flatten()).dtype == torch.float64
    assert image_dtype(nn.Flatten(), SHAPE) == torch.float32


def test_a_net_that_takes_images_in_no_dtype_is_refused_with_both_reasons() -> None:
    with pytest.raises(ConfigError, match=r"Unmatched cannot .*\(in float32: .*; in float64: "):
        image_dtype(made(Unmatched), SHAPE)


def test_a_reason_that_is_no_dtype_is_told_once() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 4))
    model.register_buffer("wide", torch.zeros(1, dtype=torch.float64))

    def refuse(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        raise ValueError("these images are too small")

    model.register_forward_pre_hook(refuse)
    with pytest.raises(ConfigError, match=r"width\): these images are too small$"):
        image_dtype(model, SHAPE)


def test_casting_leaves_complex_numbers_and_integers() -> None:
    model = nn.Module()
    model.a = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    model.b = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    model.c = nn.Parameter(torch.zeros(2, dtype=torch.int64), requires_grad=False)
    assert float_dtypes(model) == [torch.float32, torch.float64]
    in_dtype(model, torch.float32)
    assert [p.dtype for p in model.parameters()] == [torch.complex64, torch.float32, torch.int64]
    keep_own_dtypes(model)
    in_dtype(model, torch.float64)
    assert [p.dtype for p in model.parameters()] == [torch.complex64, torch.float32, torch.int64]
