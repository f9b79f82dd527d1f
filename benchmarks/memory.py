"""Peak memory and seconds of each verb: pictures of several sizes and numbers, a small net and a
ResNet-18, each verb in a process of its own.

    python benchmarks/memory.py                                       the small net, all sizes
    python benchmarks/memory.py --nets resnet18 --counts 1000         a ResNet-18
    python benchmarks/memory.py --nets resnet18 --sides 224 --counts 200 --defaults
    python benchmarks/memory.py passes                                memory of passes of zoo models
    python benchmarks/memory.py recompute                             training steps with and without it

The pictures are JPEG files of random colours, made on the fly; half of them are for training and
half for testing. The peak is that of the resident memory of the process and of those that it starts;
about 300 MB of it are torch and other libraries. With `--defaults` every verb runs with its own
defaults, but for the radius 0.01 of the attack, which has none; otherwise the training has one epoch
with batches of 20, the attack is two steps of PGD on at most 100 images, one corruption is measured,
and two images are explained.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

SMALL = """
from torch import nn

def small(shape, classes):
    c, h, w = shape
    return nn.Sequential(nn.Conv2d(c, 16, 5, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
                         nn.Linear(256, classes))
"""
NETS = {"small": "small.py:small", "resnet18": "{torchvision: {name: resnet18}}"}
ZOO = ("mobilenet_v3_small", "resnet18", "efficientnet_b0")
STEPS = [("resnet18", 96, 64), ("convnext_tiny", 96, 32), ("vit", 96, 64), ("densenet121", 96, 32)]
"""Net, side and batch of the training steps whose activations are computed again."""
PROGRAM = [sys.executable, "-m", "stresslens"]


def pictures(home: Path, side: int, count: int) -> None:
    """Two classes of `count` JPEG files in all, half of them below train/, half below test/."""
    for part in ("train", "test"):
        for label in range(2):
            draws = np.random.default_rng([label, part == "test"])
            folder = home / part / f"class{label}"
            folder.mkdir(parents=True)
            for k in range(count // 4):
                small = draws.integers(0, 256, (14, 14, 3)).astype(np.uint8)
                small[:7, :, label] //= 2
                Image.fromarray(small).resize((side, side)).save(folder / f"{k}.jpg", quality=60)


def measured(
    command: list[str], home: Path, variables: Mapping[str, str] | None = None
) -> tuple[resource.struct_rusage, float, str]:
    """What a command uses in a process of its own (peak of the resident memory, CPU seconds), its seconds,
    and what it says on standard error. `variables` are added to its environment. Raises SystemExit if it
    fails."""
    began, environment = time.perf_counter(), {**os.environ, **(variables or {})}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        text = said.read()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{text[-2000:]}")
    return usage, time.perf_counter() - began, text


def verbs(net: str, defaults: bool) -> Iterator[tuple[str, list[str]]]:
    """The verbs with their arguments, in an order in which each finds what it needs. RUN is the
    folder of the trained run."""
    train = ["pictures", NETS[net], "train.epochs=1", *([] if defaults else ["train.batch_size=20"])]
    trust = ["--trust"] if net == "small" else []
    two_images = [] if defaults else ["--images", "2"]
    two_steps = ["--images", "100", "--protocol", "[{pgd: {steps: 2}}]"]
    yield "data check", ["data", "check", "pictures"]
    yield "data stats", ["data", "stats", "pictures"]
    yield "train", ["train", *train]
    yield "evaluate", ["evaluate", "RUN", *trust]
    yield "predict", ["predict", "RUN", "pictures/test", *trust]
    yield "explain", ["explain", "RUN", *two_images, *trust]
    yield "report", ["report", "RUN"]
    yield "export", ["export", "RUN", "--to", "safetensors", *trust]
    yield "attack", ["attack", "RUN", "--radii", "0.01", *([] if defaults else two_steps), *trust]
    yield "corruptions", ["train", *train, "corruptions=[noise]", "--name", "corrupted"]


def passes() -> None:
    """Prints what a pass of one image of 224×224 takes, and how many images pass at once."""
    from stresslens.core.layer_table import multiply_adds_of
    from stresslens.core.pass_memory import bytes_of_pass, images_at_once
    from stresslens.core.torchvision_compat import torchvision

    shape = (3, 224, 224)
    print("| net | multiply-adds, millions | MB, forward | images at once | MB, with gradient | at once |")
    print("|---|--:|--:|--:|--:|--:|")
    for name in ZOO:
        net = getattr(torchvision().models, name)()
        figures = [f"{multiply_adds_of(net, shape) / 1e6:,.0f}"]
        for gradient in (False, True):
            figures.append(f"{bytes_of_pass(net, shape, gradient=gradient) / 1e6:.0f}")
            figures.append(f"{images_at_once(net, shape, 512, gradient=gradient)}")
        print(f"| {name} | {' | '.join(figures)} |", flush=True)


def trained(name: str, side: int, batch: int, ways: tuple[bool, ...]) -> list[Callable[[], None]]:
    """A training step, on random images, for each way: whether activations are computed again."""
    import torch
    from torch import nn

    from stresslens.core.torchvision_compat import torchvision
    from stresslens.plugins.models.vit import vit
    from stresslens.training.recomputation import Recomputation

    def step_of(again: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        made = vit if name == "vit" else getattr(torchvision().models, name)
        net = made((3, side, side), 10, patch=8) if name == "vit" else made(num_classes=10)
        net = net.to(memory_format=torch.channels_last)
        x, y = torch.rand(batch, 3, side, side), torch.arange(batch) % 10
        around = Recomputation(net).active if again else nullcontext

        def step() -> None:
            with around():
                loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            net.zero_grad()

        return step

    return [step_of(again) for again in ways]


def peak_of_steps(name: str, side: int, batch: int, again: bool) -> None:
    """Prints the bytes by which the peak of this process grows in two steps."""
    from stresslens.core.devices import keep_memory, peak_memory, start_watching_memory

    keep_memory()
    (small,), (step,) = (trained(name, side, size, (again,)) for size in (4, batch))
    small()  # loads the kernels
    start_watching_memory("cpu")
    before = peak_memory("cpu") or 0
    step()
    step()
    print((peak_memory("cpu") or 0) - before)


def recompute(turns: int) -> None:
    """Prints how much less memory a training step takes that computes its activations again, in processes
    of their own, and how much longer it takes, in turns within this one."""
    from stresslens.core.devices import keep_memory

    keep_memory()
    print("| net | side | batch | peak, MB | computed again, MB | ratio | time, ratio (range), n |")
    print("|---|--:|--:|--:|--:|--:|---|", flush=True)
    for name, side, batch in STEPS:
        peaks = []
        for again in (False, True):
            words = [sys.executable, __file__, "step", name, str(side), str(batch), str(int(again))]
            peaks.append(int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 1e6)
        steps = trained(name, side, batch, (False, True))
        ratios = []
        for _ in range(turns + 1):
            seconds = []
            for step in steps:
                began = time.thread_time()
                step()
                seconds.append(time.thread_time() - began)
            ratios.append(seconds[1] / seconds[0])
        ratios = sorted(ratios[1:])  # without the first, which plans kernels
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {turns}"
        share = peaks[1] / peaks[0]
        print(
            f"| {name} | {side} | {batch} | {peaks[0]:,.0f} | {peaks[1]:,.0f} | {share:.2f} | {spread} |",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["step"]:
        name, *numbers = sys.argv[2:]
        side, batch, again = map(int, numbers)
        return peak_of_steps(name, side, batch, bool(again))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=sorted(NETS), default=["small"])
    parser.add_argument("--sides", nargs="+", type=int, default=[32, 96, 224])
    parser.add_argument("--counts", nargs="+", type=int, default=[1000, 20_000])
    parser.add_argument("--verbs", nargs="+", help="only these")
    parser.add_argument("--defaults", action="store_true", help="every verb with its own defaults")
    parser.add_argument("--turns", type=int, default=5, help="of recompute")
    parser.add_argument("what", nargs="?", choices=["verbs", "passes", "recompute"], default="verbs")
    asked = parser.parse_args()
    if asked.what != "verbs":
        return passes() if asked.what == "passes" else recompute(asked.turns)
    print("| net | side | pictures | verb | peak, MB | seconds | what it says beforehand |", flush=True)
    print("|---|--:|--:|---|--:|--:|---|", flush=True)
    for side in asked.sides:
        for count in asked.counts:
            with tempfile.TemporaryDirectory() as place:
                home = Path(place)
                (home / "small.py").write_text(SMALL)
                pictures(home / "pictures", side, count)
                os.environ["XDG_CACHE_HOME"] = str(home / "cache")
                for net in asked.nets:
                    for verb, arguments in verbs(net, asked.defaults):
                        if asked.verbs and verb not in (*asked.verbs, "train"):
                            continue
                        found = list((home / "runs").rglob("model.safetensors"))
                        run = str(found[0].parent) if found else ""
                        command = [*PROGRAM, *(run if part == "RUN" else part for part in arguments)]
                        usage, seconds, said = measured(command, home)
                        peak = usage.ru_maxrss / 1000
                        line = next((line for line in said.splitlines() if " takes about " in line), "")
                        print(
                            f"| {net} | {side} | {count:,} | {verb} | {peak:,.0f} | {seconds:.0f} | {line} |",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
