"""Training steps of zoo models, side by side in one process: a plain torchvision or timm loop, and
stresslens.

    python benchmarks/transfer.py [FOLDER]               # about 7 minutes on two cores
    python benchmarks/transfer.py FOLDER resnet18 32     # one net at one size

FOLDER holds pictures in a folder per class; without one, crops of two photographs that scikit-learn
carries are written as JPEGs. ResNet-18 and EfficientViT-M1, ten classes, Adam, at 32×32 and
224×224: the plain loop from files (ImageFolder, 0 and 2 workers) and from float32 tensors in
memory; stresslens from its cache of the same files, in the precision it chooses by itself and in
float32. Prints images per second, the median of turns, and ratios with n.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from training import InMemory, in_turns, notebook_loop, stresslens_steps, training_of

from stresslens.config import study_file
from stresslens.core.torchvision_compat import cure, torchvision
from stresslens.training.autotune import autotune
from stresslens.training.task import Task

CASES = {32: (64, 12), 224: (32, 3)}
"""By the pixels of a side: images a batch, and steps a turn."""
TURNS = 5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def crops(folder: Path, count: int = 1200, side: int = 64) -> Path:
    """JPEGs of two classes, crops of scikit-learn's two sample photographs."""
    from sklearn.datasets import load_sample_images

    draws = np.random.default_rng(0)
    for name, photograph in zip(("roof", "flower"), load_sample_images().images):
        (folder / name).mkdir(parents=True)
        for k in range(count // 2):
            top, left = (draws.integers(0, length - side) for length in photograph.shape[:2])
            Image.fromarray(photograph[top : top + side, left : left + side]).save(
                folder / name / f"{k:05d}.jpg", quality=90
            )
    return folder


def plain(kind: str, classes: int) -> nn.Module:
    torch.manual_seed(0)
    if kind == "resnet18":
        return torchvision().models.resnet18(num_classes=classes)  # type: ignore[no-any-return]
    cure()
    import timm

    return timm.create_model("efficientvit_m1", num_classes=classes)


def from_files(folder: Path, side: int) -> Any:
    vision = torchvision()
    steps = [
        vision.transforms.Resize((side, side)),
        vision.transforms.ToTensor(),
        vision.transforms.Normalize(MEAN, STD),
    ]
    return vision.datasets.ImageFolder(str(folder), vision.transforms.Compose(steps))


def task_of(kind: str, folder: Path, side: int, size: int, home: Path, **train: Any) -> Task:
    model = (
        {"torchvision": {"name": "resnet18"}} if kind == "resnet18" else {"timm": {"name": "efficientvit_m1"}}
    )
    config = study_file.variant_config_from(
        {
            "data": {"folder": {"path": str(folder), "size": side}},
            "model": model,
            "input": {"normalize": {"mean": list(MEAN), "std": list(STD)}},
            "train": {"batch_size": size, "optimizer": "adam", **train},
        },
        Path.cwd(),
    )
    return autotune(
        [Task("benchmark", "run", 0, config, Path.cwd(), home)], most_threads=torch.get_num_threads()
    )[0]


def compare(kind: str, folder: Path, side: int, home: Path) -> None:
    size, steps = CASES[side]
    files = from_files(folder, side)
    classes = len(files.classes)
    rows = torch.randperm(len(files), generator=torch.Generator().manual_seed(0))[: size * steps].tolist()
    x = torch.stack([files[row][0] for row in rows])
    y = torch.tensor([files[row][1] for row in rows])
    nets = {name: plain(kind, classes) for name in ("files, 0 workers", "files, 2 workers", "memory")}
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=0.001) for name, net in nets.items()}
    loaders: dict[str, Any] = {
        "files, 0 workers": DataLoader(files, size, shuffle=True),
        "files, 2 workers": DataLoader(files, size, shuffle=True, num_workers=2, persistent_workers=True),
        "memory": InMemory(x, y, size),
    }
    chosen = training_of(task_of(kind, folder, side, size, home / "auto"))
    float32 = training_of(task_of(kind, folder, side, size, home / "float32", precision="float32"))
    contestants = {
        **{
            name: lambda name=name: notebook_loop(nets[name], loaders[name], steps, optimizers[name])
            for name in nets
        },
        "stresslens": lambda: stresslens_steps(chosen, steps),
        "stresslens, float32": lambda: stresslens_steps(float32, steps),
    }
    rates = in_turns(contestants, turns=TURNS)
    way = chosen.compute
    print(
        (
            f"{kind} at {side}×{side}, batch {size} ({way.precision}, {way.threads} threads, "
            f"{way.memory_format}):"
        ),
        flush=True,
    )
    for name, rate in rates.items():
        print(f"    {name:22} {rate:8.1f} images/s")
    n = f"median of {TURNS} turns of {steps} steps"
    for name in nets:
        own, same = rates["stresslens"] / rates[name], rates["stresslens, float32"] / rates[name]
        print(f"    against {name}: {own:.2f}x, in float32 {same:.2f}x ({n})", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else crops(home / "crops")
        for side, kind in itertools.product(CASES, ("resnet18", "efficientvit_m1")):
            if {kind, str(side)}.issuperset(sys.argv[2:]):
                compare(kind, folder, side, home / f"{kind}-{side}")


if __name__ == "__main__":
    main()
