"""Activations that the backward pass computes again instead of keeping them (gradient checkpointing; Chen
et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from stresslens.core.errors import ConfigError

CONTAINERS = (nn.Sequential, nn.ModuleList)


class Recomputation:
    """Passes of a net that keep only what goes into its blocks.

    A block is an element of a stage (a sequence of modules) that has modules of its own: the residual
    blocks of a ResNet, the blocks of a transformer. A sequence of plain layers is divided into about the
    square root of its length. The last block is kept, because the backward pass needs it at once.
    Dropout draws the same numbers again, and the running statistics of batch norm are those of one pass.
    Raises ConfigError for a net without two blocks.
    """

    def __init__(self, net: nn.Module) -> None:
        self.calls = _calls(net)
        if not self.calls:
            raise ConfigError(
                f"train.recompute: {type(net).__name__} has no sequence of blocks or layers whose "
                "activations could be computed again; set it to false"
            )

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context in which the net's passes keep only what goes into its blocks; the backward pass may
        come later."""
        for module, call in self.calls:
            module._compiled_call_impl = call  # the slot of a module's call, which copies do not have
        try:
            yield
        finally:
            for module, _ in self.calls:
                module._compiled_call_impl = None


def _calls(net: nn.Module) -> list[tuple[nn.Module, Callable[..., Any]]]:
    """The modules whose calls are replaced, each with the call in its place."""
    blocks, sequences = _divided(net)
    again = blocks if sequences else blocks[:-1]
    return [
        *((block, _Block(block, block._call_impl)) for block in again),
        *((sequence, _Segments(sequence)) for sequence in sequences),
    ]


def _divided(net: nn.Module) -> tuple[list[nn.Module], list[nn.Sequential]]:
    """The blocks of a net, and its sequences of plain layers, each in their order."""
    blocks: list[nn.Module] = []
    sequences: list[nn.Sequential] = []

    def visit(module: nn.Module) -> None:
        children = list(module.children())
        if isinstance(module, CONTAINERS) and not any(any(child.children()) for child in children):
            trained = next(module.parameters(), None) is not None
            if isinstance(module, nn.Sequential) and len(children) > 2 and trained:
                sequences.append(module)
            return
        for child in children:
            inner = isinstance(child, CONTAINERS) or not isinstance(module, CONTAINERS) or _has_stages(child)
            if inner:
                visit(child)
            elif any(child.children()) and child not in blocks:
                blocks.append(child)

    visit(net)
    return blocks, sequences


def _has_stages(module: nn.Module) -> bool:
    """Whether a module has a sequence of modules that have modules of their own."""
    return any(
        isinstance(part, CONTAINERS) and sum(any(child.children()) for child in part.children()) > 1
        for part in module.modules()
    )


class _Block:
    """The call of a block in a pass that does not keep its activations."""

    def __init__(self, block: nn.Module, run: Callable[..., Any]) -> None:
        self.modules, self.run = list(block.modules()), run
        self.in_place = any(getattr(module, "inplace", False) for module in self.modules)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.run(*args, **kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        before = [tensor._version for tensor in given]
        result = checkpoint(self._run, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)
        if [tensor._version for tensor in given] != before:
            raise ConfigError(
                f"train.recompute: {type(self.modules[0]).__name__} writes into what it is given, so its "
                "activations cannot be computed again; set it to false"
            )
        return result

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self.in_place:  # of layers that write into what they are given
            args = tuple(value.clone() if isinstance(value, Tensor) else value for value in args)
        return self.run(*args, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        buffers = [
            (module, name, buffer.clone())
            for module in self.modules
            if module.training
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        return nullcontext(), _with_buffers(buffers)


@contextmanager
def _with_buffers(before: Sequence[tuple[nn.Module, str, Tensor]]) -> Iterator[None]:
    """The modules have copies of the buffers that they had before the first pass; what the second pass
    writes into them, such as running statistics, is forgotten."""
    kept = [(module, name, module._buffers[name]) for module, name, _ in before]
    for module, name, buffer in before:
        module._buffers[name] = buffer
    try:
        yield
    finally:
        for module, name, own in kept:
            module._buffers[name] = own


class _Segments:
    """The call of a sequence of plain layers in a pass that keeps what goes into each of its segments."""

    def __init__(self, sequence: nn.Sequential) -> None:
        self.sequence = sequence
        layers = list(sequence)
        count = max(2, round(math.sqrt(len(layers))))
        ends = [round(k * len(layers) / count) for k in range(count + 1)]
        parts = [nn.Sequential(*layers[first:last]) for first, last in pairwise(ends)]
        self.first = [_Block(part, part) for part in parts[:-1]]
        self.last = parts[-1]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        vars(self.sequence)["forward"] = self._forward  # for the hooks of the sequence
        try:
            return self.sequence._call_impl(*args, **kwargs)
        finally:
            del vars(self.sequence)["forward"]

    def _forward(self, x: Any) -> Any:
        for segment in self.first:
            x = segment(x)
        return self.last(x)
