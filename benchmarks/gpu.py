"""stresslens on a GPU, beside what its users would write or install, on the same card.

    python benchmarks/gpu.py                      # everything
    python benchmarks/gpu.py training             # images per second: a plain bfloat16, channels-last,
                                                  # compiled loop against stresslens
    python benchmarks/gpu.py attacks              # PGD-40 and `standard` against torchattacks' PGD and
                                                  # AutoAttack
    python benchmarks/gpu.py cifar --airbench airbench94_muon.py
                                                  # CIFAR-10: seconds to 94 %, beside that program
    python benchmarks/gpu.py --dry                # tries this program on the CPU; its figures say nothing

Contestants take turns; medians of n turns are printed, and ratios. torchattacks is optional (pip install
torchattacks); without it its rows are missing. `cifar` needs the CIFAR-10 files under STRESSLENS_DATA and
runs `studies/presets/airbench.yaml`; airbench (github.com/KellerJordan/cifar10-airbench) is a program of
its own, which is run as it is.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import study_file
from stresslens.core.data import Data, Split
from stresslens.core.run_folder import RunFolder
from stresslens.training.autotune import autotune, compute_config
from stresslens.training.compiled_net import why_not_compiled
from stresslens.training.loop import Training
from stresslens.training.setup import build_model
from stresslens.training.task import Task

GOAL = 0.94
PRESET = Path(__file__).parents[1] / "studies" / "presets" / "airbench.yaml"


@dataclass(frozen=True)
class Sizes:
    """How much is computed; `dry` is only to try the program."""

    device: str
    images: int
    batch: int
    steps: int
    turns: int
    model: Any
    attacked: int
    pgd_steps: int


FULL = Sizes("cuda", 50_000, 512, 60, 5, {"preact_resnet": {"depth": 18}}, 1000, 40)
DRY = Sizes("cpu", 64, 16, 2, 1, {"simple_cnn": {"channels": 4, "hidden": 8}}, 8, 2)


def wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def in_turns(contestants: dict[str, Callable[[], int]], turns: int, device: str) -> dict[str, float]:
    """Median images per second of each, after one turn to warm up, in which graphs are compiled too."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name, run in contestants.items():
            wait(device)
            began = time.perf_counter()
            images = run()
            wait(device)
            if turn:
                rates[name].append(images / (time.perf_counter() - began))
    return {name: median(values) for name, values in rates.items()}


def told(title: str, rates: dict[str, float], turns: int) -> None:
    first = next(iter(rates))
    print(f"\n{title}; medians of n = {turns} turns")
    for name, rate in rates.items():
        print(f"  {name:40} {rate:12,.1f} images/s   {rate / rates[first]:6.2f} × {first}", flush=True)


def made_data(images: int) -> Data:
    """Random images of the shape of CIFAR-10, with random labels."""
    random = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (images, 3, 32, 32), generator=random, dtype=torch.uint8)
    y = torch.arange(images) % 10
    return Data(Split(x, y), Split(x[:20], y[:20]), None, tuple(map(str, range(10))), "random images")


def plain_loop(net: nn.Module, x: Tensor, y: Tensor, sizes: Sizes) -> Callable[[], int]:
    """The strongest loop that one writes by hand: images on the device, bfloat16, channels-last, compiled,
    a fused optimizer, and nothing that waits for the device."""
    net = net.to(sizes.device, memory_format=torch.channels_last).train()
    x, y = x.to(sizes.device), y.to(sizes.device)
    compiled = torch.compile(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001, fused=True)

    def run() -> int:
        order = torch.randperm(len(x), device=sizes.device)
        for step in range(sizes.steps):
            rows = order[(step * sizes.batch) % len(x) :][: sizes.batch]
            images = x[rows].float().div_(255).contiguous(memory_format=torch.channels_last)
            with torch.autocast(torch.device(sizes.device).type, torch.bfloat16):
                loss = nn.functional.cross_entropy(compiled(images), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return sizes.steps * sizes.batch

    return run


def our_loop(data: Data, folder: Path, sizes: Sizes, **train: Any) -> tuple[Callable[[], int], str]:
    """The steps of stresslens' own loop, and how it computes them."""
    settings = {"batch_size": sizes.batch, "device": sizes.device, **train}
    config = study_file.variant_config_from({"model": sizes.model, "train": settings}, folder)
    (task,) = autotune([Task("gpu", "run", 0, config, folder, folder, data)], most_threads=1)
    torch.manual_seed(0)
    compute = compute_config(task)
    training = Training(
        build_model(task, data),
        data.to(sizes.device),
        task.config.train,
        compute=compute,
        seed=0,
        folder=RunFolder(folder),
        base=folder,
        show=lambda state, epochs, done: None,
    )

    def run() -> int:
        training.model.train()
        done = 0
        while done < sizes.steps:
            for batch in training.batches():
                loss = training.batch_loss(batch)
                training.backward(loss)
                value, images = training.reduce(loss, batch)
                training.check(value, batch)
                training.optimizer_step()
                training.count(value, images)
                done += 1
                if done == sizes.steps:
                    break
            training.state.step = 0
        return sizes.steps * sizes.batch

    return run, f"{compute.precision}, {compute.memory_format}{', compiled' if compute.compile else ''}"


def training(sizes: Sizes) -> None:
    data = made_data(sizes.images)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        contestants: dict[str, Callable[[], int]] = {}
        config = study_file.variant_config_from({"model": sizes.model}, folder)
        net = build_model(Task("gpu", "run", 0, config, folder, folder, data), data)
        compiler = not why_not_compiled(sizes.device)
        if compiler:
            contestants["plain, bf16, channels-last, compiled"] = plain_loop(
                net, data.train.images, data.train.labels, sizes
            )
        for train in ({}, {"precision": "bfloat16", "compile": compiler}):
            run, how = our_loop(data, folder, sizes, **train)
            contestants[f"stresslens ({how})"] = run
        told(
            f"training {sizes.model}, batch {sizes.batch}",
            in_turns(contestants, sizes.turns, sizes.device),
            sizes.turns,
        )


def attacks(sizes: Sizes) -> None:
    """On an untrained net and its own answers: every image is right at first."""
    data = made_data(sizes.attacked)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = study_file.variant_config_from({"model": sizes.model}, folder)
        model = build_model(Task("gpu", "run", 0, config, folder, folder, data), data).to(sizes.device).eval()
    x = data.train.floats(data.train.images).to(sizes.device)
    with torch.no_grad():
        y = model(x).argmax(1)
    eps, count = 1 / 255, len(x)
    pgd = {"pgd": {"steps": sizes.pgd_steps, "relative_step": 0.1}}

    def ours(protocol: Any) -> Callable[[], int]:
        def run() -> int:
            sl.attack(model, x, y, radii=[eps], protocol=protocol, audit=False)
            return count

        return run

    contestants = {f"stresslens PGD-{sizes.pgd_steps}": ours([pgd]), "stresslens standard": ours("standard")}
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        of_peer = {"alpha": eps / 10, "steps": sizes.pgd_steps, "random_start": True}
        peers = {
            f"torchattacks PGD-{sizes.pgd_steps}": torchattacks.PGD(model, eps=eps, **of_peer),
            "torchattacks AutoAttack": torchattacks.AutoAttack(model, norm="Linf", eps=eps, n_classes=10),
        }
        for name, attack in peers.items():
            contestants[name] = lambda attack=attack: len(attack(x, y))
    else:
        print("torchattacks is not installed (pip install torchattacks); its rows are missing")
    told(
        f"attacks on {sizes.model}, {count} images",
        in_turns(contestants, sizes.turns, sizes.device),
        sizes.turns,
    )


def cifar(sizes: Sizes, program: Path | None) -> None:
    """Seconds of training until validation first reaches 94 %, by the logs of the run."""
    dry = sizes is DRY
    with tempfile.TemporaryDirectory() as place:
        if dry:
            run = sl.train("linear", "digits", epochs=2, device=sizes.device, out=place)
        else:
            study = Path(place) / "cifar.yaml"
            study.write_text("preset: airbench\ndata: {cifar10: {validation: 5000}}\n")
            run = sl.run(study, out=Path(place) / "runs").runs[0]
        folder = RunFolder(run.folder)
        lines = zip(folder.read_lines(folder.metrics), folder.read_lines(folder.timings), strict=True)
        reached = [t["seconds"] for m, t in lines if m["validation"]["accuracy"] >= GOAL]
        first = f"{reached[0]:.1f} s" if reached else "not reached"
        print(f"\nCIFAR-10 to {100 * GOAL:.0f} % on validation, n = 1: stresslens {first}", flush=True)
    if program is not None:
        began = time.perf_counter()
        subprocess.run([sys.executable, program.name], cwd=program.parent, check=True)
        print(f"{program.name} took {time.perf_counter() - began:.1f} s in all; its own lines say more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], "training", "attacks", "cifar"])
    parser.add_argument("--dry", action="store_true", help="tries this program on the CPU")
    parser.add_argument("--airbench", type=Path, help="the program to run beside CIFAR-10")
    asked = parser.parse_args()
    if not asked.dry and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here, so nothing is measured; --dry tries this program on the CPU")
    sizes = DRY if asked.dry else FULL
    parts = asked.parts or ["training", "attacks", "cifar"]
    print(
        f"{'a dry run on the CPU' if asked.dry else torch.cuda.get_device_name()}, torch {torch.__version__}"
    )
    if "training" in parts:
        training(sizes)
    if "attacks" in parts:
        attacks(sizes)
    if "cifar" in parts:
        cifar(sizes, asked.airbench)


if __name__ == "__main__":
    main()
