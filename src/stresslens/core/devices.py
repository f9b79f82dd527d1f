"""Compute configuration: device, precision, threads, memory format; memory."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from stresslens.core.dtypes import in_dtype
from stresslens.core.errors import ConfigError, first_line

Precision = Literal["float32", "bfloat16", "float16", "float64"]
MemoryFormat = Literal["contiguous", "channels_last"]

NARROW: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions in which autocast computes, while weights stay in float32."""

KEPT = 96 * 2**20
"""Bytes of the largest block of memory that is kept when it is freed."""


@dataclass(frozen=True)
class ComputeConfig:
    """The settings, besides the code, that a result's bits depend on; every run records them."""

    device: str
    precision: Precision
    threads: int
    memory_format: MemoryFormat
    compile: bool = False
    """The forward pass of training is compiled (`training.compiled_net`)."""
    recompute: bool = False
    """The backward pass computes the activations again (`training.recomputation`)."""

    def settings(self) -> dict[str, Any]:
        """The settings of `train` that these are. Those that earlier versions did not have are left
        out where they are off."""
        return {key: value for key, value in asdict(self).items() if value is not False}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and images; bfloat16 and float16 use autocast with float32 weights."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def place(self, model: nn.Module) -> nn.Module:
        return in_dtype(model, self.dtype).to(device=self.device, memory_format=self.layout)  # type: ignore[call-overload, no-any-return]

    def active(self) -> AbstractContextManager[None]:
        """A context in which torch uses `threads` threads."""
        return on_threads(self.threads)

    def autocast(self) -> torch.autocast:
        """Autocast to bfloat16 or float16 if that is the precision; otherwise a context without effect."""
        kind = torch.device(self.device).type
        narrow = NARROW.get(self.precision, torch.bfloat16)
        return torch.autocast(kind, narrow, enabled=self.precision in NARROW)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Torch uses `count` threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(asked: str) -> str:
    """The device to use; `auto` is CUDA if available, or else the CPU.

    Raises ConfigError for a device that this machine does not have.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", asked):
        raise ConfigError(f"device {asked!r}: expected auto, cpu, cuda, cuda:N or mps")
    try:
        torch.zeros(1, device=asked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {asked!r} cannot be used here: {first_line(error)[:120]}") from error
    return asked


def keep_memory() -> None:
    """Tells glibc to keep freed memory.

    Otherwise each large activation is mapped, zeroed page by page and unmapped again. Measured on
    two cores, a training step of simple_cnn at batch 512 takes about two thirds of the time.
    Without glibc this does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(mmap_threshold, KEPT)
        mallopt(trim_threshold, 2**31 - 1)


def release_memory() -> None:
    """Returns freed memory that is kept for reuse (`keep_memory`) to the system, if glibc allows it.

    It is called between stages of a run: the holes that one leaves seldom suit the next one.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def total_memory(device: str) -> int | None:
    """The bytes of a device, whether they are free or not: of a GPU, or else what this process may use
    of the machine. None where it cannot be told."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if sys.platform == "win32":  # which does not say how much there is
        return None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # a limit of the container; "max" is none
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


def start_watching_memory(device: str) -> None:
    """Resets the peak that `peak_memory` returns.

    Freed memory that is kept for reuse is first returned to the system, if glibc allows it.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        release_memory()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM (proc(5))


def peak_memory(device: str) -> int | None:
    """Peak memory in bytes: of the tensors on a GPU, or else of the whole process.

    None if it cannot be measured.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(peak[1]) if peak else None
