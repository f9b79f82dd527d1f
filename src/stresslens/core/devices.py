"""Where and how the arithmetic runs: device, precision, threads and memory format, chosen by
measuring where not told."""

from __future__ import annotations

import copy
import ctypes
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from stresslens.core.errors import ConfigError, first_line

Precision = Literal["float32", "bfloat16", "float64"]
MemoryFormat = Literal["contiguous", "channels_last"]

PROBE_SECONDS = 0.02
"""How long each way of running a step is timed."""
SMALL_STEP = 1e-3
"""Seconds of a plain step below which bfloat16 is not tried: there the conversions cost more than
the arithmetic."""
GAIN = 1.2
"""How many times faster than one float32 thread another way must be: a small gain turns into a loss
on a busy machine."""


@dataclass(frozen=True)
class ComputeConfig:
    """What the bits of a result depend on besides the code: written into every run's configuration."""

    device: str
    precision: Precision
    threads: int
    memory_format: MemoryFormat

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and images; bfloat16 is reached by autocast, with float32 weights."""
        return torch.float64 if self.precision == "float64" else torch.float32

    def place(self, model: nn.Module) -> nn.Module:
        last = torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format
        return model.to(device=self.device, dtype=self.dtype, memory_format=last)  # type: ignore[call-overload, no-any-return]

    def active(self) -> AbstractContextManager[None]:
        """These threads for the duration."""
        return on_threads(self.threads)

    def autocast(self) -> torch.autocast:
        """bfloat16 where the operation allows it, when that is the precision; otherwise nothing."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """So many threads of torch's for the duration."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(asked: str) -> str:
    """The device asked for; `auto` is CUDA where there is one. Raises ConfigError for a device that
    is not here."""
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
    """Tells glibc to keep freed memory: otherwise each large activation is mapped, zeroed page by
    page and unmapped again.

    Measured on two cores, a training step of simple_cnn at batch 512 takes about two thirds of the
    time. Elsewhere than on glibc it does nothing.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # malloc.h
        mallopt(mmap_threshold, 2**30)
        mallopt(trim_threshold, 2**31 - 1)


def start_watching_memory(device: str) -> None:
    """From here on `peak_memory` counts. Memory that was freed but kept for reuse is given back
    first, where glibc allows it."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (proc(5))


def peak_memory(device: str) -> int | None:
    """Bytes at the highest: of the tensors on a GPU, else of the whole process; None where it
    cannot be measured."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else None


def candidates(
    model: nn.Module,
    device: str,
    precision: Precision | Literal["auto"],
    threads: int | None,
    most: int,
) -> list[ComputeConfig]:
    """The ways to run a step that are worth timing, the plain one first."""
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    precisions: list[Precision] = ["float32", "bfloat16"] if precision == "auto" else [precision]
    formats: list[MemoryFormat] = ["contiguous", "channels_last"] if convolutional else ["contiguous"]
    counts = [threads] if threads else ([1, most] if device == "cpu" and most > 1 else [most])
    return [ComputeConfig(device, p, t, f) for p in precisions for f in formats for t in counts]


def measure_compute(
    model: nn.Module, step: Callable[[nn.Module, ComputeConfig], None], ways: list[ComputeConfig]
) -> dict[ComputeConfig, float]:
    """Seconds a step takes in each of the ways, on a copy of the model: the best of what fits into
    `PROBE_SECONDS`.

    More threads are not timed again where they gained nothing in the plain way, nor is bfloat16 for
    a step that is small anyway.
    """
    seconds: dict[ComputeConfig, float] = {}
    for way in ways:
        lost = (
            len(seconds) > 1 and way.threads > ways[0].threads and seconds[ways[1]] * GAIN > seconds[ways[0]]
        )
        if lost or (way.precision == "bfloat16" and min(seconds.values(), default=1.0) < SMALL_STEP):
            continue
        trial = way.place(copy.deepcopy(model))
        with way.active():
            step(trial, way)  # the first call plans its kernels
            taken: list[float] = []
            while sum(taken) < PROBE_SECONDS:
                start = time.perf_counter()
                step(trial, way)
                if torch.device(way.device).type == "cuda":
                    torch.cuda.synchronize()
                taken.append(time.perf_counter() - start)
            seconds[way] = min(taken)
    return seconds


def fastest(seconds: dict[ComputeConfig, float], precision: Precision | None = None) -> ComputeConfig:
    """The quickest way, of one precision if given; the plain one unless another is at least `GAIN`
    times as fast."""
    ways = [way for way in seconds if precision in (None, way.precision)]
    if not ways and precision is not None:  # not timed: a small step, or another machine's choice
        return replace(fastest(seconds), precision=precision)
    best = min(ways, key=lambda way: seconds[way])
    return best if seconds[best] * GAIN < seconds[ways[0]] else ways[0]
