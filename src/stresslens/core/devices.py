"""Compute configuration: device, precision, threads, memory format; timing of candidates;
memory."""

from __future__ import annotations

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
from torch import Tensor, nn

from stresslens.core.copies import copied, departure, responses
from stresslens.core.errors import ConfigError, first_line

Precision = Literal["float32", "bfloat16", "float64"]
MemoryFormat = Literal["contiguous", "channels_last"]

PROBE_SECONDS = 0.02
"""How long each candidate is timed."""
KEPT = 96 * 2**20
"""Bytes of the largest block of memory that is kept when it is freed."""
SMALL_STEP = 1e-3
"""bfloat16 is not tried if a plain step takes fewer seconds: conversions then cost more than they
save."""
GAIN = 1.2
"""Another candidate is chosen over one float32 thread only if it is this many times faster, because
a small gain turns into a loss on a busy machine."""


@dataclass(frozen=True)
class ComputeConfig:
    """The settings, besides the code, that a result's bits depend on; every run records them."""

    device: str
    precision: Precision
    threads: int
    memory_format: MemoryFormat

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and images; bfloat16 uses autocast with float32 weights."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def place(self, model: nn.Module) -> nn.Module:
        return model.to(device=self.device, dtype=self.dtype, memory_format=self.layout)  # type: ignore[call-overload, no-any-return]

    def active(self) -> AbstractContextManager[None]:
        """A context in which torch uses `threads` threads."""
        return on_threads(self.threads)

    def autocast(self) -> torch.autocast:
        """Autocast to bfloat16 if that is the precision; otherwise a context without effect."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")


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


def start_watching_memory(device: str) -> None:
    """Resets the peak that `peak_memory` returns.

    Freed memory that is kept for reuse is first returned to the system, if glibc allows it.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        release_memory()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (proc(5))


def peak_memory(device: str) -> int | None:
    """Peak memory in bytes: of the tensors on a GPU, or else of the whole process.

    None if it cannot be measured.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(peak[1]) if peak else None


def candidates(
    model: nn.Module,
    device: str,
    precision: Precision | Literal["auto"],
    threads: int | None,
    most: int,
) -> list[ComputeConfig]:
    """The compute configurations to time, the plain one first."""
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    precisions: list[Precision] = ["float32", "bfloat16"] if precision == "auto" else [precision]
    formats: list[MemoryFormat] = ["contiguous", "channels_last"] if convolutional else ["contiguous"]
    counts = [threads] if threads else ([1, most] if device == "cpu" and most > 1 else [most])
    return [ComputeConfig(device, p, t, f) for p in precisions for f in formats for t in counts]


def measure_compute(
    model: nn.Module, step: Callable[[nn.Module, ComputeConfig], None], ways: list[ComputeConfig], x: Tensor
) -> dict[ComputeConfig, float]:
    """Seconds that a step takes with each configuration, on a copy of the model.

    Each is the minimum of the repetitions that fit into `PROBE_SECONDS`. More threads are skipped
    if they gained nothing in the plain configuration, and bfloat16 is skipped for a small step. So
    is a configuration in which the model cannot compute, or computes something else than in the
    plain one, on images x (n, C, H, W).
    """
    seconds: dict[ComputeConfig, float] = {}
    same = {(ways[0].precision, ways[0].memory_format)}
    for way in ways:
        no_gain = (
            len(seconds) > 1 and way.threads > ways[0].threads and seconds[ways[1]] * GAIN > seconds[ways[0]]
        )
        if no_gain or (way.precision == "bfloat16" and min(seconds.values(), default=1.0) < SMALL_STEP):
            continue
        if (way.precision, way.memory_format) not in same:
            if not _computes_the_same(model, way, ways[0], x):
                continue
            same.add((way.precision, way.memory_format))
        trial = way.place(copied(model))
        with way.active():
            step(trial, way)  # the first call plans its kernels
            times: list[float] = []
            while sum(times) < PROBE_SECONDS:
                start = time.perf_counter()
                step(trial, way)
                if torch.device(way.device).type == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            seconds[way] = min(times)
    return seconds


def _computes_the_same(model: nn.Module, way: ComputeConfig, plain: ComputeConfig, x: Tensor) -> bool:
    """Whether answers and gradients in evaluation mode are those of the plain configuration, to
    rounding; bfloat16 rounds to two digits, and only its answers count."""
    found = []
    for each in (plain, way):
        trial = each.place(copied(model)).eval()
        images = x.to(each.device, each.dtype)
        try:
            with each.active(), each.autocast():
                found.append(responses(trial, images.contiguous(memory_format=each.layout)))
        except (RuntimeError, TypeError, NotImplementedError):  # a user's module may do anything
            return False
    if way.precision != plain.precision:
        found = [
            [{k: v.bfloat16() for k, v in one.items() if k.startswith("output")} for one in each]
            for each in found
        ]
    return not departure(*found)


def fastest(seconds: dict[ComputeConfig, float], precision: Precision | None = None) -> ComputeConfig:
    """The fastest configuration, if given of one precision.

    It is the plain one unless another is at least `GAIN` times as fast.
    """
    ways = [way for way in seconds if precision in (None, way.precision)]
    if not ways and precision is not None:  # not timed: a small step, or another machine's choice
        return replace(fastest(seconds), precision=precision)
    best = min(ways, key=lambda way: seconds[way])
    return best if seconds[best] * GAIN < seconds[ways[0]] else ways[0]
