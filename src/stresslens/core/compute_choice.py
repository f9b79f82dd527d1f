"""Choice of threads, memory format and precision for a model.

Fixed rules decide by device and shape. A measurement leaves them only for a clear gain, and is kept
(`kept_choices`), so that the same command computes the same bits.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.copies import copied, departure, fast_copy, responses
from stresslens.core.devices import NARROW, ComputeConfig, MemoryFormat, Precision, keep_memory, on_threads
from stresslens.core.dtypes import as_input, float_dtypes
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.inspection import evaluating, is_plain
from stresslens.core.kept_choices import ComputeChoice, kept_or_made, measuring_allowed

OPERATIONS_OF_A_THREAD = 1.5e8
"""Floating-point operations of a step for each of its threads, at least: with fewer, a second thread
gained less than a fifth in `benchmarks/compute.py`."""
MEASURED_FROM = 2.5e8
"""Steps of fewer floating-point operations (some milliseconds) are computed as the rules say."""
MOST_TIMED = 2e10
"""Floating-point operations of a timed step, at most: some tenths of a second on a CPU."""
FEWEST_TIMED = 2
"""Images of a timed step, at least: batch norm needs two."""
PAIRS, WINS, GAIN = 9, 8, 1.45
"""What leaves a rule has to be `GAIN` times as fast in `WINS` of `PAIRS` alternating pairs. If it were
only that fast in half of all pairs, the chance of this would be 10 / 2^9 = .02 (sign test). The gain
lies between those that bfloat16 had on the built-in models (benchmarks/compute.py): at most 1.3 or
from 1.5 in training, at most 1.4 or from 1.5 in attacks."""
REPEATED, SHORTEST = 3, 0.01
"""One time is the minimum of so many steps, and of as many as fit into so many seconds."""

Way = tuple[Precision, MemoryFormat]
Clock = Callable[[], float]


def threads_for(operations: float, most: int) -> int:
    """The number of threads for a step of so many floating-point operations on a CPU."""
    return max(1, min(most, int(operations / OPERATIONS_OF_A_THREAD)))


def images_to_time(multiply_adds: int) -> int:
    """The most images of a timed step, from the multiply-adds of one image, so that no step of a
    large net takes long."""
    return max(FEWEST_TIMED, int(MOST_TIMED / max(1, 6 * multiply_adds)))


def memory_formats(model: nn.Module, device: str, precision: Precision) -> list[MemoryFormat]:
    """The memory formats that are worth trying, beginning with the one of the rule: channels-last
    for convolutions on a CPU with oneDNN, and for 16 bits on a GPU. Patches that do not overlap, as
    a vision transformer cuts them, gain nothing."""
    if not any(isinstance(m, nn.Conv2d) and m.kernel_size != m.stride for m in model.modules()):
        return ["contiguous"]
    kind = torch.device(device).type
    last = (kind == "cpu" and torch.backends.mkldnn.is_available()) or (
        kind == "cuda" and precision in NARROW
    )
    return ["channels_last", "contiguous"] if last else ["contiguous", "channels_last"]


def bfloat16_in_hardware(device: str) -> bool:
    kind = torch.device(device).type
    if kind == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return kind != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def narrow_precision(device: str) -> Precision | None:
    """The precision of 16 bits that may be measured beside float32: bfloat16 where the hardware
    computes it, float16 on other GPUs; None where neither pays."""
    if bfloat16_in_hardware(device):
        return "bfloat16"
    return "float16" if torch.device(device).type == "cuda" else None


def possible_ways(
    model: nn.Module,
    x: Tensor,
    device: str,
    precisions: Sequence[Precision],
    formats: Sequence[MemoryFormat] | None = None,
) -> dict[Precision, list[MemoryFormat]]:
    """The memory formats in which a model can be computed in each precision, the usual one first;
    `formats` instead of all. Left out is what computes something else than the first precision in
    contiguous memory, on images x (n, C, H, W); but what is asked for stays, and training says why
    it does not work."""
    plain = ComputeConfig(device, precisions[0], torch.get_num_threads(), "contiguous")

    def works(precision: Precision, memory_format: MemoryFormat) -> bool:
        way = ComputeConfig(device, precision, plain.threads, memory_format)
        asked_for = formats is not None and precision == plain.precision
        return way == plain or asked_for or computes_the_same(model, way, plain, x)

    found = {
        precision: [
            each for each in formats or memory_formats(model, device, precision) if works(precision, each)
        ]
        for precision in precisions
    }
    return {precision: ways for precision, ways in found.items() if ways}


def usual_format(model: nn.Module, x: Tensor) -> MemoryFormat:
    """The usual memory format on a CPU in which a float32 model computes the same on images x
    (n, C, H, W)."""
    plain = ComputeConfig("cpu", "float32", torch.get_num_threads(), "contiguous")
    first = memory_formats(model, "cpu", "float32")[0]
    way = replace(plain, memory_format=first)
    return first if way == plain or computes_the_same(model, way, plain, x) else "contiguous"


def for_many_images(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy of a model on the CPU for forward passes over many images, in the usual memory format,
    in evaluation mode. The model itself where a copy gains nothing, where it has hooks, and where
    the copy computes something else on images x (n, C, H, W)."""
    if (
        not float_dtypes(model)
        or {p.device.type for p in model.parameters()} != {"cpu"}
        or memory_formats(model, "cpu", "float32")[0] == "contiguous"
        or not all(is_plain(module) for module in model.modules())
    ):
        return model
    try:
        with evaluating(model):
            return fast_copy(model, as_input(x, model), memory_format=torch.channels_last)
    except Exception:  # a user's module may do anything
        return model


def computes_the_same(model: nn.Module, way: ComputeConfig, plain: ComputeConfig, x: Tensor) -> bool:
    """Whether answers and gradients in evaluation mode are those of the plain configuration, to
    rounding; 16 bits are compared to the two digits of bfloat16, and only their answers count."""
    found = []
    for each in (plain, way):
        trial = each.place(copied(model)).eval()
        images = as_input(x, trial)
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


def choose(
    model: nn.Module,
    possible: Mapping[Precision, Sequence[MemoryFormat]],
    prepare: Callable[[Precision, MemoryFormat], Callable[[], None]],
    *,
    operations: float,
    device: str,
    about: Mapping[str, Any],
) -> ComputeChoice:
    """The fixed choice among `possible`, or the measured one that is kept for this machine, model and
    `about` (what is computed, in plain values).

    A step of fewer `operations` than MEASURED_FROM is never measured. `prepare` returns a step in
    a precision and memory format.
    """
    usual = usual_choice(possible)
    if sum(map(len, possible.values())) == 1 or operations < MEASURED_FROM or not measuring_allowed():
        return usual
    known = {
        **about,
        "architecture": architecture_digest(model),
        "possible": {precision: list(formats) for precision, formats in possible.items()},
        "machine": machine(device),
    }

    def measure() -> ComputeChoice:
        keep_memory()
        with on_threads(1 if torch.device(device).type == "cpu" else torch.get_num_threads()):
            try:
                return measured_choice(possible, prepare, clock_of(device))
            except Exception:  # of a user's module: its first real step tells it
                return usual

    return kept_or_made(known, measure) or usual


def usual_choice(possible: Mapping[Precision, Sequence[MemoryFormat]]) -> ComputeChoice:
    """The first precision, and the first memory format in each."""
    return ComputeChoice(
        {precision: formats[0] for precision, formats in possible.items()}, next(iter(possible))
    )


def measured_choice(
    possible: Mapping[Precision, Sequence[MemoryFormat]],
    prepare: Callable[[Precision, MemoryFormat], Callable[[], None]],
    clock: Clock,
) -> ComputeChoice:
    """As `usual_choice`, except for what is clearly faster by this clock."""
    gains: dict[str, list[float]] = {}

    def fastest(ways: Sequence[Way]) -> Way:
        best, *others = ways
        for other in others:
            ratios = gains_in_pairs(prepare(*best), prepare(*other), clock)
            gains[f"{' '.join(other)} beside {' '.join(best)}"] = [round(ratio, 3) for ratio in ratios]
            best = other if clear(ratios) else best
        return best

    formats = {
        precision: fastest([(precision, each) for each in tried])[1] for precision, tried in possible.items()
    }
    precision, _ = fastest(list(formats.items()))
    return ComputeChoice(formats, precision, gains)


def gains_in_pairs(
    usual: Callable[[], None], other: Callable[[], None], clock: Clock, gain: float = GAIN
) -> list[float]:
    """How many times as fast `other` is as `usual`, in each of `PAIRS` alternating pairs, or in fewer
    where these decide whether it is `gain` times as fast."""
    usual()
    other()  # the first calls plan their kernels
    ratios: list[float] = []
    while (
        len(ratios) < PAIRS
        and sum(ratio < gain for ratio in ratios) <= PAIRS - WINS
        and not clear(ratios, gain)
    ):
        if len(ratios) % 2:
            fast, slow = _seconds(other, clock), _seconds(usual, clock)
        else:
            slow, fast = _seconds(usual, clock), _seconds(other, clock)
        ratios.append(slow / fast)
    return ratios


def clear(ratios: Sequence[float], gain: float = GAIN) -> bool:
    """Whether the gains of alternating pairs are clear."""
    return sum(ratio >= gain for ratio in ratios) >= WINS


def _seconds(step: Callable[[], None], clock: Clock) -> float:
    times: list[float] = []
    while len(times) < REPEATED or sum(times) < SHORTEST:
        start = clock()
        step()
        times.append(max(clock() - start, 1e-9))
    return min(times)


def clock_of(device: str) -> Clock:
    """A clock for steps on a device: on a CPU the processor time of this thread, so that other work
    on the machine does not count."""
    kind = torch.device(device).type
    if kind == "cpu":
        return time.thread_time
    synchronize = torch.cuda.synchronize if kind == "cuda" else torch.mps.synchronize

    def clock() -> float:
        synchronize()
        return time.perf_counter()

    return clock


def architecture_digest(model: nn.Module) -> str:
    """16 hexadecimal digits of a module's structure: its description, and the shapes and types of
    its parameters; its weights do not matter."""
    described = re.sub(r" at 0x[0-9a-f]+", "", repr(model))
    kinds = [f"{type(module).__module__}.{type(module).__qualname__}" for module in model.modules()]
    shapes = [[name, list(p.shape), str(p.dtype)] for name, p in model.named_parameters()]
    return fingerprint_of([described, kinds, shapes])


def machine(device: str) -> dict[str, str]:
    """What the speed of one thread, or of a GPU, depends on: two machines of a kind have the same."""
    if torch.device(device).type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return {"device": torch.device(device).type, "processor": processor, "torch": torch.__version__}


@cache
def _processor() -> str:
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()
