"""The forward pass of training, compiled by torch.compile. torch's compiler is imported only here, when a
training asks for it: the import takes seconds."""

from __future__ import annotations

import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, first_line

MOST_GRAPHS = 32
"""Graphs of one net, of other shapes or other frozen layers, at most."""


def why_not_compiled(device: str) -> str:
    """Why nothing can be compiled for a device here, in words; empty if it can."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "" if find_spec("triton") else "torch.compile needs the package triton for a GPU"
    if kind != "cpu":
        return f"torch.compile does not serve the device {kind}"
    compiler = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if shutil.which(compiler):
        return ""
    return (
        f"torch.compile needs a C++ compiler for a CPU, and {compiler} is not found; install it, or name "
        "another in the environment variable CXX"
    )


class CompiledNet:
    """A net's passes in training mode, compiled for each shape of their inputs; other passes are computed
    as they are written.

    No graph depends on what was compiled before, so that a resumed training computes the same bits. They
    do depend on the number of threads at the first pass. Raises ConfigError where the compiler fails.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.compiled: Callable[..., Any] | None = None
        self.seen: set[tuple[Any, ...]] = set()
        """The shapes and dtypes of the inputs so far."""

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context in which the net's passes in training mode are compiled."""
        self.net._compiled_call_impl = self._call  # the slot of a module's call, which copies do not have
        try:
            yield
        finally:
            self.net._compiled_call_impl = None

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        if not self.net.training or not torch.is_grad_enabled():
            return self.net._call_impl(*args, **kwargs)
        key = tuple((v.shape, v.dtype) for v in args if isinstance(v, Tensor))
        if self.compiled is not None and key in self.seen:
            return self.compiled(*args, **kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's compiler about itself
            self.seen.add(key)
            return self._first(*args, **kwargs)

    def _first(self, *args: Any, **kwargs: Any) -> Any:
        """The first pass of a shape, which is compiled meanwhile."""
        import torch._dynamo
        import torch._inductor.compile_fx
        import torch._inductor.exc

        if self.compiled is None:
            config = torch._dynamo.config
            limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
            setattr(config, limit, max(MOST_GRAPHS, getattr(config, limit)))
            options: dict[str, Any] = {"cpp.threads": torch.get_num_threads()}  # so the cache on disk asks
            own = _own_function(self.net._call_impl)
            self.compiled = torch.compile(own, dynamic=False, options=options)
        try:
            return self.compiled(*args, **kwargs)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise ConfigError(
                f"train.compile: torch cannot compile {type(self.net).__name__} here "
                f"({first_line(error)[:200]}); set it to false"
            ) from error


def _own_function(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls another. torch keeps graphs by the code of a function, and this one's is its
    own, so that nets of one process do not share them."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    own = types.FunctionType(
        forward.__code__.replace(), forward.__globals__, "forward", None, forward.__closure__
    )
    own.__kwdefaults__ = forward.__kwdefaults__
    return own
