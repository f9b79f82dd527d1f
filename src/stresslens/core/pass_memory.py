"""Memory of a pass through a model, measured on two images: how many images pass at once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stresslens.core.dtypes import as_input
from stresslens.core.inspection import evaluating, without_compiling
from stresslens.core.pieces import at_most, in_pieces
from stresslens.core.torch_compiler import without_compiler
from stresslens.core.types import Shape

MEASURED = 2
"""Images of the measured pass; some models cannot take a single one."""

_measured: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], float]] = weakref.WeakKeyDictionary()


def images_at_once(
    model: nn.Module, shape: Shape | torch.Size, most: int, *, gradient: bool = False, more: float = 0
) -> int:
    """How many images of a shape (C, H, W) pass through the model at once, at most `most`.

    It follows from the bytes that a pass takes at its peak (`bytes_of_pass`), and `more` bytes for
    each image that the caller needs. With `gradient`, the pass is followed by one back to the images.
    """
    if most <= 1:
        return most
    return at_most(most, bytes_of_pass(model, tuple(shape), gradient=gradient) + more)


def logits_in_pieces(model: nn.Module, x: Tensor, most: int | None = None) -> Tensor:
    """(n, K) the model's logits of images x (n, C, H, W), at most `most` at once, in the mode that the
    model is in."""
    size = images_at_once(model, x.shape[1:], max(1, len(x) if most is None else min(most, len(x))))
    return torch.cat(in_pieces(lambda rows: model(x[rows]), len(x), size))


def bytes_of_pass(model: nn.Module, shape: tuple[int, ...], *, gradient: bool = False) -> float:
    """The most bytes that tensors of one image of a shape (C, H, W) take at a time during a pass in
    evaluation mode, without parameters and buffers.

    It is measured once for each model. The memory that kernels use inside is not counted. 0 where a
    pass fails: the next one says why.
    """
    known = _measured.setdefault(model, {})
    first = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    key = (shape, first, gradient)
    if key not in known:
        try:
            known[key] = _peak(model, shape, gradient) / MEASURED
        except Exception:  # a user's module may raise anything, and the pass that follows says it
            known[key] = 0.0
    return known[key]


def _peak(model: nn.Module, shape: tuple[int, ...], gradient: bool) -> int:
    live = _LiveBytes()
    images = as_input(torch.zeros(MEASURED, *shape), model)
    quick = without_compiler(live.__torch_dispatch__)
    with torch.inference_mode(False), _undisturbed(model), without_compiling(), quick, live:
        x = images.clone()
        with torch.set_grad_enabled(gradient):
            output = model(x.requires_grad_(gradient))
            if gradient and output.requires_grad:
                torch.autograd.grad(output.sum(), x, allow_unused=True)
    return live.peak


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients of parameters; modes, buffers and random state are as before
    afterwards."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = list({p.device for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=devices), evaluating(model):
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make, until they are freed; `peak` is their largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = operation(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._count(leaf.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size
