"""Copies of a user's module, and the check that a copy or a rewrite computes the same function."""

from __future__ import annotations

import copy
import inspect
import random
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from stresslens.core.cropped_kernels import crop_kernels
from stresslens.core.errors import ConfigError, Notice, first_line
from stresslens.core.pool_order import pool_first

CHECKED = 4
"""The number of images on which a copy is compared with its original."""
ANSWERS, GRADIENTS, HALF = 1e-3, 1e-2, 0.25
"""The largest relative difference that is rounding: of answers, of gradients (which ReLU and max
pooling can change by one unit), and of both in half precision."""
ROUNDING = 1e-5
"""A gradient below this share of the largest one is rounding."""

LAZY = nn.modules.lazy.LazyModuleMixin

Responses = list[dict[str, Tensor]]


def usable_module(model: Any) -> Any:
    """The module, or a copy if its weights were made inside torch.inference_mode(): such weights take
    no part in gradients, and cannot be restored.

    What is not a module is returned as it is. Raises ConfigError if parameters are not made yet, or
    lie on the device meta.
    """
    if not isinstance(model, nn.Module):
        return model
    named = [*model.named_parameters(), *model.named_buffers()]
    tensors = [tensor for _, tensor in named]
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        kinds = {
            type(m).__name__ for m in model.modules() if isinstance(m, LAZY) and m.has_uninitialized_params()
        }
        raise ConfigError(
            f"{type(model).__name__} has parameters that are not made yet ({', '.join(sorted(kinds))}); "
            "call it once on a batch of images, and give it then"
        )
    if empty := [name for name, tensor in named if tensor.is_meta]:
        raise ConfigError(
            f"{type(model).__name__} has {empty[0]} on the device meta, which holds no numbers; make the "
            "module outside of torch.device('meta'), or call to_empty(device='cpu') and load its weights"
        )
    return copied(model) if any(tensor.is_inference() for tensor in tensors) else model


def eager_module(model: nn.Module) -> nn.Module:
    """The module that torch.compile was given, which computes the same function.

    If only parts of the module are compiled, it is a copy without torch.compile. A module without
    torch.compile is returned as it is. Raises ConfigError if the module cannot be copied.
    """
    while _is_compiled(model):
        model = model._orig_mod  # type: ignore[assignment]
    if not any(_compiles(module) for module in model.modules()):
        return model
    memo: dict[int, Any] = {}
    for module in reversed(list(model.modules())):  # what is inside first
        if _is_compiled(module):
            memo[id(module)] = copied(module._orig_mod, memo)  # type: ignore[arg-type]
    changed = copied(model, memo)
    for module in changed.modules():
        forward = vars(module).get("forward")
        if forward is not None and hasattr(forward, "_torchdynamo_orig_callable"):
            original = inspect.unwrap(forward)
            owner = memo.get(id(getattr(original, "__self__", None)))
            bound = owner is not None and isinstance(original, types.MethodType)
            vars(module)["forward"] = types.MethodType(original.__func__, owner) if bound else original
    return changed


def _is_compiled(module: nn.Module) -> bool:
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # not imported before the first torch.compile
    return compiler is not None and isinstance(module, compiler.OptimizedModule)


def _compiles(module: nn.Module) -> bool:
    attributes = vars(module)
    return (
        _is_compiled(module)
        or attributes.get("_compiled_call_impl") is not None
        or hasattr(attributes.get("forward"), "_torchdynamo_orig_callable")
    )


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A deep copy of a module. Raises ConfigError if it cannot be copied.

    Tensors that a forward pass left in its attributes are copied without their graph. Objects that
    cannot be copied, such as a lock, are shared. `memo` is that of copy.deepcopy.
    """
    memo = {} if memo is None else memo
    known = dict(memo)
    name = type(model).__name__
    try:
        changed = _deep_copy(model, memo)
    except Exception:  # a user's module may hold anything
        memo.clear()
        memo.update(known)
        for module in model.modules():
            for value in vars(module).values():
                _share_what_cannot_be_copied(value, memo)
        try:
            changed = _deep_copy(model, memo)
        except Exception as error:
            raise ConfigError(f"{name} cannot be copied: {first_line(error)}") from error
    if any(one is other for one, other in zip(model.parameters(), changed.parameters())):
        raise ConfigError(f"{name} cannot be copied: copy.deepcopy returns a module with the same parameters")
    return changed


def _deep_copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    with torch.no_grad():  # copies of TorchScript's parameters would have a graph
        changed: nn.Module = copy.deepcopy(model, memo)
    for (_, parameter), (_, other) in zip(model.named_parameters(), changed.named_parameters()):
        other.requires_grad_(parameter.requires_grad)
    for module, other_module in zip(model.modules(), changed.modules()):
        if isinstance(module, torch.jit.ScriptModule):  # a copy has no hooks
            other_module._forward_hooks.update(module._forward_hooks)
    return changed


def _share_what_cannot_be_copied(value: Any, memo: dict[int, Any]) -> None:
    if id(value) in memo or isinstance(value, nn.Module):
        return
    if isinstance(value, Tensor):
        if value.requires_grad and not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        return
    if isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            _share_what_cannot_be_copied(item, memo)
        return
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:
        memo[id(value)] = value


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Restores the modules' attributes and modes, requires_grad, buffers and random states."""
    modules = list(model.modules())
    attributes = [(vars(m), dict(vars(m))) for m in modules if not isinstance(m, torch.jit.ScriptModule)]
    modes = [(m, m.training) for m in modules]
    buffers = [(m, k, b, b.clone()) for m in modules for k, b in m.named_buffers(recurse=False)]
    trainable = [(p, p.requires_grad) for p in model.parameters()]
    states = random.getstate(), np.random.get_state()
    devices = list({p.device for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for now, before in attributes:
                for name in now.keys() - before.keys():
                    del now[name]
                now.update(before)
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for module, name, buffer, value in buffers:
                    module._buffers[name] = buffer.copy_(value)
            for parameter, requires_grad in trainable:
                parameter.requires_grad_(requires_grad)
            random.setstate(states[0])
            np.random.set_state(states[1])


def responses(model: nn.Module, x: Tensor, *, gradients: bool = True) -> Responses:
    """The outputs of a model for images x (N, C, H, W), and for the same images mirrored and in the
    opposite order; with `gradients`, also those of the input and of all parameters.

    The model runs in its present mode, and is unchanged afterwards. Of a parameter's gradient only
    its norm and a projection are kept.
    """
    results = []
    with unchanged(model), torch.set_grad_enabled(gradients):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        leaves = [(name, p) for name, p in model.named_parameters() if p.is_floating_point() and p.is_leaf]
        for _, parameter in leaves:
            parameter.requires_grad_()
        for images in (x, x.flip(0).flip(-1)):
            point = images.detach().clone().requires_grad_()
            outputs = [leaf for leaf in tree_leaves(model(point.clone())) if isinstance(leaf, Tensor)]
            found = {f"output {k}": output.detach().clone() for k, output in enumerate(outputs)}
            scores = [o for o in outputs if o.is_floating_point() and o.requires_grad]
            if scores:
                total = torch.stack([(o * _weights(o)).sum() for o in scores]).sum()
                wanted = [point, *(parameter for _, parameter in leaves)]
                grads = torch.autograd.grad(total, wanted, retain_graph=True, allow_unused=True)
                found["gradient of the images"] = torch.zeros_like(x) if grads[0] is None else grads[0]
                for (name, _), grad in zip(leaves, grads[1:]):
                    found[f"gradient of {name}"] = torch.zeros(2) if grad is None else _sketch(grad)
            results.append(found)
    return results


def _weights(values: Tensor) -> Tensor:
    """Fixed numbers between -1 and 1 in the shape of `values`."""
    return torch.arange(values.numel(), device=values.device).cos().view(values.shape).to(values.dtype)


def _sketch(grad: Tensor) -> Tensor:
    """(2,) the norm of a gradient, and its projection on `_weights`."""
    wide = grad.float()
    weights = _weights(wide)
    return torch.stack([wide.norm(), (wide * weights).sum() / weights.norm()]).cpu()


def departure(expected: Responses, found: Responses) -> str:
    """What differs by more than rounding, in words; empty if nothing does."""
    for before, after in zip(expected, found):
        if before.keys() != after.keys():
            return "it returns other outputs"
        sizes = [v.float().nan_to_num().norm().item() for k, v in before.items() if k.startswith("gradient")]
        largest = max(sizes, default=0.0)
        for name, value in before.items():
            one, other = value.float().cpu(), after[name].float().cpu()
            if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
                return f"{name} differs"
            one, other = one.nan_to_num(0, 0, 0), other.nan_to_num(0, 0, 0)
            allowed = float(one.norm()) * ANSWERS
            if name.startswith("gradient"):
                allowed = float(one.norm()) * GRADIENTS + ROUNDING * largest
            if value.dtype in (torch.bfloat16, torch.float16):
                allowed = HALF * float(one.norm())
            if not float((one - other).norm()) <= allowed + 1e-12:
                return f"{name} differs"
    return ""


def check_copy(model: nn.Module, changed: nn.Module, x: Tensor) -> None:
    """Raises ConfigError if a copy computes another function than the model on images x (N, C, H,
    W)."""
    if any(nn.parameter.is_lazy(p) for p in model.parameters()):
        return  # its first forward pass makes its parameters
    try:
        expected = responses(model, x)
    except Exception:
        return  # the model itself fails, which its first use will tell
    try:
        what = departure(expected, responses(changed, x))
    except Exception as error:  # a user's module may raise anything
        what = first_line(error)
    if what and departure(expected, responses(model, x)):
        return  # a model that differs from itself
    if what:
        raise ConfigError(
            f"a copy of {type(model).__name__} computes another function than the module itself ({what}); "
            "look for hooks, lambdas and attributes that refer to the module or to its layers from outside"
        )


def faster(model: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    """A copy of the model that pools before ReLU (`pool_first`), in the given memory format; not
    checked yet. Raises ConfigError if the model cannot be copied."""
    changed = copied(model)
    pool_first(changed)
    return changed.to(memory_format=memory_format)  # type: ignore[call-overload, no-any-return]


def fast_copy(
    model: nn.Module,
    x: Tensor,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    gradients: bool = True,
) -> nn.Module:
    """A copy of the model for many fast passes (`faster`, `crop_kernels`), backward too with `gradients`.

    Raises ConfigError if the copy cannot be made, or computes another function than the model on
    images x (N, C, H, W).
    """
    x = x[:CHECKED].contiguous()
    expected = responses(model, x, gradients=gradients)
    try:
        changed = faster(model, memory_format)
        images = x.contiguous(memory_format=memory_format)
        with unchanged(changed):
            crop_kernels(changed, images)
        what = departure(expected, responses(changed, images, gradients=gradients))
    except Exception as error:  # a user's module may raise anything
        what = first_line(error)
    if what:
        raise ConfigError(f"a faster copy of {type(model).__name__} does not compute the same: {what}")
    return changed


def use_as_it_is(model: nn.Module, error: ConfigError) -> nn.Module:
    """The model itself, where `fast_copy` has raised an error, with a Notice."""
    warnings.warn(f"{error}; {type(model).__name__} is used as it is, only slower", Notice, stacklevel=3)
    return model


def quick(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy of the model for many fast forward passes on a CPU (`fast_copy`), in channels last; the
    model itself where such a copy gains nothing or fails its check on images x (N, C, H, W)."""
    first = next(model.parameters(), None)
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if first is None or first.device.type != "cpu" or not convolutional:
        return model
    try:
        return fast_copy(model, x, memory_format=torch.channels_last, gradients=False)
    except ConfigError as error:
        return use_as_it_is(model, error)
    except Exception:  # the model fails, which its first use will tell
        return model
