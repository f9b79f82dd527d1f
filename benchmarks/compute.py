"""What the rules of `core/compute_choice.py` rest on: channels last beside contiguous memory,
bfloat16 beside float32, and two threads beside one.

    python benchmarks/compute.py                    # everything, on an idle machine
    python benchmarks/compute.py --only predict     # the speed of `predict` and `evaluate`
    python benchmarks/compute.py --only compiled    # torch.compile in training, and what compiling takes

Contestants take turns in one process; medians of ratios are printed, with n and the range. The clock
of memory formats and precisions is the processor time of one thread, that of `predict` and of threads
the clock on the wall.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.study_file import variant_config_from
from stresslens.core import devices
from stresslens.core.attack_base import attacked
from stresslens.core.compute_choice import for_many_images, images_to_time, usual_format
from stresslens.core.data import Data, Split
from stresslens.core.devices import MemoryFormat, Precision, on_threads
from stresslens.core.layer_table import layer_table
from stresslens.core.pool_order import pool_first
from stresslens.evaluation.scores import logits_of
from stresslens.robustness.autotune import AttackCompute, _step
from stresslens.training.autotune import _train_step, autotune, compute_config
from stresslens.training.pass_choice import measured_passes
from stresslens.training.task import Task

RESNET = {"torchvision": {"name": "resnet18"}}
PREDICTED = [("simple_cnn", (1, 28, 28)), ("simple_cnn", (3, 32, 32)), ("simple_cnn", (3, 96, 96))]
PREDICTED += [(RESNET, (3, 224, 224))]  # type: ignore[list-item]
MODELS = [
    ("simple_cnn", (1, 8, 8)),
    *PREDICTED,
    ("first_cnn", (1, 28, 28)),
    ("lenet", (1, 28, 28)),
    ("simple_net", (3, 32, 32)),
    (RESNET, (3, 32, 32)),
    ({"torchvision": {"name": "mobilenet_v2"}}, (3, 224, 224)),
    ("mlp", (1, 28, 28)),
    ("vit", (3, 32, 32)),
]
COMPILED = [("simple_cnn", 32), ("vit", 32), ("preact_resnet", 32), ("mlp", 32)]
WAYS: list[tuple[Precision, MemoryFormat]] = [
    ("float32", "contiguous"),
    ("float32", "channels_last"),
    ("bfloat16", "channels_last"),
]


def built(model: object, shape: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = registry.resolve("models", model)(shape=shape, classes=10, names=tuple("0123456789"))
    return net


def in_turns(
    steps: list[Callable[[], object]], turns: int, clock: Callable[[], float]
) -> tuple[float, list[str]]:
    """Seconds of the first step, and how many times as fast as it each other one is."""
    times: list[list[float]] = [[] for _ in steps]
    for step in steps:
        step()
    for _ in range(turns):
        for step, taken in zip(steps, times):
            found: list[float] = []
            while len(found) < 3 or sum(found) < 0.02:
                start = clock()
                step()
                found.append(clock() - start)
            taken.append(min(found))
    ratios = [[a / b for a, b in zip(times[0], taken)] for taken in times[1:]]
    return statistics.median(times[0]), [
        f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in ratios
    ]


def predicting(turns: int, images: int) -> None:
    print(f"\nlogits of {images} images (8 at 224): beside contiguous memory, n = {turns} turns")
    for model, shape in PREDICTED:
        net = built(model, shape).eval()
        x = torch.rand(images if shape[1] < 200 else 8, *shape)
        split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
        run = built(model, shape).eval().to(memory_format=getattr(torch, usual_format(net, x[:4])))  # type: ignore[call-overload]
        copy = for_many_images(net, x[:4])
        contestants: list[Callable[[], object]] = [
            lambda each=each, split=split: logits_of(each, split)  # type: ignore[misc]
            for each in (net, run, copy)
        ]
        difference = (logits_of(run, split) - logits_of(net, split)).abs().max()
        seconds, (of_run, of_copy) = in_turns(contestants, turns, time.perf_counter)
        print(
            f"  {model} {shape}: {len(x) / seconds:.0f} images a second; a run {of_run}, "
            f"sl.evaluate {of_copy} times as fast; logits differ by at most {difference:.0e}",
            flush=True,
        )


def computing(turns: int) -> None:
    print(f"\nbeside float32 in contiguous memory, on one thread, n = {turns} turns")
    for model, shape in MODELS:
        net = built(model, shape)
        pool_first(net)
        multiply_adds = layer_table(net, shape).multiply_adds
        x = torch.rand(min(64, images_to_time(multiply_adds)), *shape)
        split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
        with on_threads(1):
            training = [_train_step(net, split, "cpu", *way) for way in WAYS]
            told = in_turns(training, turns, time.thread_time)[1]  # type: ignore[arg-type]
            with attacked(net):
                attacking = [attack_step(net, x, *way) for way in WAYS]
                told += in_turns(attacking, turns, time.thread_time)[1]  # type: ignore[arg-type]
        names = ("training channels last", "bfloat16", "attack channels last", "bfloat16")
        print(
            f"  {model} {shape}: " + "; ".join(f"{name} {gain}" for name, gain in zip(names, told)),
            flush=True,
        )


def attack_step(
    net: nn.Module, x: Tensor, precision: Precision, memory_format: MemoryFormat
) -> Callable[[], None]:
    batched = AttackCompute(precision, memory_format).copied(net)  # type: ignore[arg-type]
    return lambda: _step(batched, x)


def threading(turns: int) -> None:
    print(f"\ntwo threads beside one, a training step in float32, n = {turns} turns")
    for model, shape, batches in (
        ("simple_cnn", (1, 8, 8), (64, 128, 512)),
        ("simple_cnn", (1, 28, 28), (8, 32, 128)),
        ("mlp", (1, 28, 28), (64, 512)),
        ("lenet", (1, 28, 28), (16, 64)),
        ("vit", (3, 32, 32), (2, 8)),
    ):
        for batch in batches:
            net = built(model, shape)
            split = Split(torch.rand(batch, *shape), torch.zeros(batch, dtype=torch.int64), 1.0)
            operations = 6 * layer_table(net, shape).multiply_adds * batch
            step = _train_step(net, split, "cpu", "float32", usual_format(net, split.images[:4]))

            def on(count: int, step: Callable[[], None] = step) -> Callable[[], object]:
                def run() -> None:
                    with on_threads(count):
                        step()

                return run

            _, (gain,) = in_turns([on(1), on(2)], turns, time.perf_counter)
            print(f"  {model} {shape}, batch {batch}, {operations / 1e6:.0f} million operations: {gain}")


def compiling() -> None:
    """Prints what `train.compile: auto` measures for a step of each net."""
    print("| net, size | batch | compiled / as written, float32 | compiling, s | a step, s |")
    print("|---|--:|---|--:|--:|", flush=True)
    for model, side in COMPILED:
        x = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8)
        data = Data(Split(x, torch.arange(64) % 10), None, None, tuple("0123456789"))
        with tempfile.TemporaryDirectory() as place:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = place  # nothing is compiled already
            train = {"batch_size": 32, "device": "cpu", "precision": "float32", "threads": 1}
            config = variant_config_from({"model": model, "train": train, "data": "cifar10"}, Path(place))
            (task,) = autotune(
                [Task("compute", "run", 0, config, Path(place), Path(place), data)], most_threads=1
            )
            found = measured_passes(task, compute_config(task), 32)
        (ratios,) = found.gains.values()
        told = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), n = {len(ratios)}"
        times = f"{found.seconds['compiling']:.0f} | {found.seconds['step']:.3f}"
        print(f"| {model} {side}×{side} | 32 | {told} | {times} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=["predict", "ways", "threads", "compiled"], help="default: the first three"
    )
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--images", type=int, default=512)
    given = parser.parse_args()
    devices.keep_memory()
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {load}")
    if given.only in (None, "predict"):
        predicting(given.turns, given.images)
    if given.only in (None, "ways"):
        computing(given.turns)
    if given.only in (None, "threads"):
        threading(given.turns)
    if given.only == "compiled":
        compiling()


if __name__ == "__main__":
    main()
