"""Floating-point dtypes: in which dtype a model takes its images, and which models keep their own."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, first_line
from stresslens.core.types import Shape

TRIED = 2
"""Images of a pass that tries a dtype; some models cannot take a single one."""
OWN_DTYPES = "_stresslens_own_dtypes"
"""The attribute of a module that computes in dtypes of its own, so that copies have it too."""

_known: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], torch.dtype]] = weakref.WeakKeyDictionary()


def float_dtypes(model: nn.Module) -> list[torch.dtype]:
    """The floating-point dtypes of a model's parameters and then of its buffers, each once. A complex
    dtype counts as that of its real part."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    floats = (tensor.dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex())
    return list(dict.fromkeys(dtype.to_real() for dtype in floats))


def image_dtype(
    model: nn.Module, shape: Shape | torch.Size, otherwise: torch.dtype = torch.float32
) -> torch.dtype:
    """The dtype in which a model takes images of a shape (C, H, W): that of its parameters and buffers,
    or `otherwise` where none is a floating-point number.

    Where they have several dtypes, it is the first in which a pass works. Raises ConfigError where
    none does.
    """
    found = float_dtypes(model)
    if len(found) < 2:
        return found[0] if found else otherwise
    known, key = _known.setdefault(model, {}), (*shape, *found)
    if key not in known:
        known[key] = _first_that_works(model, shape, found)
    return known[key]


def as_input(x: Tensor, model: nn.Module) -> Tensor:
    """Images x (N, C, H, W) on the model's device, in the dtype in which it takes them."""
    return x.to(device_of(model), image_dtype(model, x.shape[1:], x.dtype))


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer; the CPU without one."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model itself with its floating-point parameters and buffers in float32 or float64, unless it
    keeps its own dtypes. Complex numbers and integers stay as they are."""
    if OWN_DTYPES in vars(model):
        return model
    return model.double() if dtype == torch.float64 else model.float()


def keep_own_dtypes(model: nn.Module) -> None:
    """Makes `in_dtype` leave a model as it is."""
    vars(model)[OWN_DTYPES] = True


def why_not(model: nn.Module, shape: Shape | torch.Size, dtype: torch.dtype) -> str:
    """Why a pass of images of a shape (C, H, W) in this dtype fails, in words; empty if it works.

    The model runs in evaluation mode; modes, buffers and random state are as before afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (m, name, value, value.clone()) for m, _ in modes for name, value in m.named_buffers(recurse=False)
    ]
    devices = list({p.device for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            for module, _ in modes:
                module.training = False
            model(torch.zeros(TRIED, *shape, dtype=dtype, device=device_of(model)))
        except Exception as error:  # a user's module may raise anything
            return first_line(error)
        finally:
            for module, training in modes:
                module.training = training
            for module, name, buffer, before in buffers:
                module._buffers[name] = buffer.copy_(before)
    return ""


def _first_that_works(model: nn.Module, shape: Shape | torch.Size, dtypes: list[torch.dtype]) -> torch.dtype:
    reasons: dict[str, list[str]] = {}
    for dtype in dtypes:
        reason = why_not(model, shape, dtype)
        if not reason:
            return dtype
        reasons.setdefault(reason, []).append(name_of(dtype))
    net = dict(model.named_children()).get("net", model)  # behind the input layers of a run
    refused = f"{type(net).__name__} cannot take images of shape {tuple(shape)} (channels, height, width)"
    if len(reasons) == 1:
        raise ConfigError(f"{refused}: {reason}")
    tried = "; ".join(f"in {' and '.join(names)}: {reason}" for reason, names in reasons.items())
    raise ConfigError(
        f"{refused}: its weights and buffers are in {' and '.join(map(name_of, dtypes))} ({tried}); cast "
        "between them in its forward method, or give the module in one dtype (module.float())"
    )


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32 if their dtype is narrower. Autocast gives a softmax or a sigmoid of logits in
    bfloat16 in that dtype on a CPU, whose two digits leave little of a difference of logarithms."""
    return values if values.dtype == torch.float64 else values.float()


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
