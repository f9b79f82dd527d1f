"""Lab E's operators: our own convolution beside torch's, and attention within windows beside
attention to all tokens.

    python benchmarks/operators.py                                   # both, on the CPU
    python benchmarks/operators.py --only convolution --batch 256    # the lab's batches: 6 GiB of memory
    python benchmarks/operators.py --only attention --device cuda
    python benchmarks/operators.py --only convolution --own my_conv.py:MyConv2d

`--own` adds a convolution of your own: a class that is built as torch's `Conv2d` is, or a function
that is called as torch's `conv2d` is, with (x, weight, bias, stride, padding). Its outputs and
gradients are first compared with the library's; where they differ, nothing is measured.

Each contestant trains in a process of its own, and they take turns; medians are printed, with n,
and ratios to the first. Memory is what a training step needs beyond what stood there before it
(weights, their gradients, momentum, the images): the peak of the process (on a GPU of the tensors),
and the peak of what torch has allocated, as its profiler counts it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stresslens.config.own_plugins import module_of_file
from stresslens.core import devices
from stresslens.core.errors import ConfigError
from stresslens.labs.network_parts import check_convolution
from stresslens.plugins.models._unfold import UnfoldConv2d
from stresslens.plugins.models.simple_net import simple_net
from stresslens.plugins.models.window_vit import window_vit

STEPS = 3
"""Timed ones in each process, after one to warm up."""


class ColumnsKept(torch.autograd.Function):
    """The operator as the lab writes it: the patches of the whole batch at once, kept for the
    backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        columns = F.unfold(x, weight.shape[2:], padding=1)  # (N, C·h·w, H·W)
        ctx.save_for_backward(columns, weight)
        ctx.size = x.shape[2:]
        return (weight.flatten(1) @ columns + bias[:, None]).unflatten(2, x.shape[2:])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        columns, weight = ctx.saved_tensors
        slope = slope.flatten(2)
        of_weight = torch.einsum("nkp,ncp->kc", slope, columns).view_as(weight)
        of_x = (
            F.fold(weight.flatten(1).t() @ slope, ctx.size, weight.shape[2:], padding=1)
            if ctx.needs_input_grad[0]
            else None
        )
        return of_x, of_weight, slope.sum((0, 2))


class ColumnsKeptConv2d(UnfoldConv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = ColumnsKept.apply(input, weight, bias)
        return result


def with_columns_kept(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, UnfoldConv2d):
            module.__class__ = ColumnsKeptConv2d
    return net


def own_convolution(text: str) -> type[nn.Module]:
    """The class or function FILE.py:NAME, as a class that is built as torch's `Conv2d` is."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise SystemExit(f"--own {text}: no such file; give FILE.py:NAME")
    try:
        own = getattr(module_of_file(Path(path).resolve()), name, None)
    except ConfigError as error:
        raise SystemExit(f"--own {text}: {error}") from None
    if isinstance(own, type) and issubclass(own, nn.Module):
        return own
    if not callable(own):
        raise SystemExit(f"--own {text}: {path} has no class and no function {name}")

    class OwnConv2d(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            result: Tensor = own(input, weight, bias, self.stride, self.padding)
            return result

    return OwnConv2d


def with_own_convolution(net: nn.Module, own: type[nn.Module]) -> nn.Module:
    """The net with this class in place of every `Conv2d`, and the same weights."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            kept = {"stride": module.stride, "padding": module.padding, "bias": module.bias is not None}
            built = own(module.in_channels, module.out_channels, module.kernel_size, **kept)
            built.load_state_dict(module.state_dict())
            net.set_submodule(name, built)
    return net


def check_own(text: str) -> None:
    """Compares values and gradients with the library's, as `stresslens lab check` does. Ends the
    program where they differ."""
    for finding in check_convolution(own_convolution(text), None):
        if finding.severity == "serious":
            raise SystemExit(f"--own {text}: {finding.audit}: {finding.evidence}; nothing was measured")


NETS: dict[str, Callable[[tuple[int, int, int]], nn.Module]] = {
    "library": lambda shape: simple_net(shape, 100),
    "unfold": lambda shape: simple_net(shape, 100, conv="unfold"),
    "columns kept": lambda shape: with_columns_kept(simple_net(shape, 100, conv="unfold")),
    "global": lambda shape: window_vit(shape, 100, local=[]),
    "local in 0 and 2": lambda shape: window_vit(shape, 100),
    "local in all": lambda shape: window_vit(shape, 100, local=range(4)),
}
"""Also "…, channels last", and "…, scores kept": attention not fused, with every token's share of
every other in memory. Any other name is FILE.py:NAME of an own convolution."""


def net_of(name: str, shape: tuple[int, int, int]) -> nn.Module:
    if name in NETS:
        return NETS[name](shape)
    return with_own_convolution(simple_net(shape, 100), own_convolution(name))


def measured(contestant: str, side: int, batch: int, device: str) -> dict[str, float]:
    """In this process: seconds of a step, and the bytes it needs."""
    torch.manual_seed(0)
    name, _, way = contestant.partition(", ")
    last = torch.channels_last if way == "channels last" else torch.contiguous_format
    net = net_of(name, (3, side, side)).to(device=device, memory_format=last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x = torch.rand(batch, 3, side, side, device=device).contiguous(memory_format=last)
    y = torch.arange(batch, device=device) % 100

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        with sdpa_kernel(SDPBackend.MATH) if way == "scores kept" else nullcontext():
            F.cross_entropy(net(x), y).backward()
        optimizer.step()
        if x.is_cuda:
            torch.cuda.synchronize()

    step()
    devices.start_watching_memory(device)
    before = torch.cuda.memory_allocated(device) if x.is_cuda else resident()
    step()
    needed = (devices.peak_memory(device) or 0) - before
    found = {"process": needed, "allocated": needed if x.is_cuda else allocated(step)}
    devices.keep_memory()  # as stresslens trains
    step()
    taken = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return found | {"seconds": statistics.median(taken)}


def resident() -> int:
    """Bytes of memory this process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def allocated(step: Callable[[], None]) -> int:
    """The peak of what torch allocates on the CPU during a step, less what it frees."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    return peak


def compare(contestants: list[str], side: int, batch: int, device: str, turns: int) -> None:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, figures in found.items():
            case = json.dumps({"contestant": name, "side": side, "batch": batch, "device": device})
            done = subprocess.run(
                [sys.executable, __file__, "--one", case], check=True, capture_output=True, text=True
            )
            figures.append(json.loads(done.stdout))
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(
        f"{side}×{side} pixels, batches of {batch}, on {device}; medians of n = {turns} processes of "
        f"{STEPS} steps; {load}"
    )
    middle = {
        name: {key: statistics.median(f[key] for f in figures) for key in figures[0]}
        for name, figures in found.items()
    }
    first = middle[contestants[0]]
    for name, values in middle.items():
        spread = ", ".join(f"{f['seconds']:.3f}" for f in found[name])
        memory = "   ".join(
            f"{key} {values[key] / 2**20:6.0f} MiB ({values[key] / first[key]:.2f}×)"
            for key in ("process", "allocated")
        )
        print(
            (
                f"  {name:29} {values['seconds']:.3f} s a step ({values['seconds'] / first['seconds']:.2f}×; "
                f"{spread})   {memory}"
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["convolution", "attention"], help="default: both")
    parser.add_argument(
        "--batch", type=int, default=64, help="images of 128×128; of larger ones fewer, for as many pixels"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--own",
        action="append",
        default=[],
        metavar="FILE.py:NAME",
        help="a convolution of your own; may be repeated",
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(**json.loads(given.one))))
        return
    for own in given.own:
        check_own(own)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    if given.only != "attention":
        compare(
            ["library", "library, channels last", "unfold", "columns kept", *given.own],
            128,
            given.batch,
            given.device,
            given.turns,
        )
    if given.only != "convolution":
        for side in (128, 256, 512):
            batch = max(1, given.batch * 128**2 // side**2)
            print(f"{side // 16}×{side // 16} tokens: ", end="")
            fused = ["global", "local in 0 and 2", "local in all"]
            compare(
                [*fused, "global, scores kept", "local in 0 and 2, scores kept"],
                side,
                batch,
                given.device,
                given.turns,
            )


if __name__ == "__main__":
    main()
