"""Speed of the augmentations, side by side in one process: stresslens, torchvision v2 and, where it is
installed, kornia.

    python benchmarks/augmentations.py                  # 32×32 and 224×224, about two minutes
    python benchmarks/augmentations.py 32 --turns 9     # one size
    python benchmarks/augmentations.py 32 --only flip --only color_jitter

Each contestant turns uint8 images into a batch of augmented float32 images in [0, 1], with parameters
that are drawn for each image. torchvision draws them for one image at a time, as in a data set's
`__getitem__`; its images are converted to floats first or last, and the faster of both counts. mixup
and CutMix take a whole batch everywhere, for which torchvision draws one share. The contestants take
turns, so that a busy machine slows all of them; the median over the turns is printed, with n images
in a turn, and the ratio to stresslens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from training import in_turns

from stresslens.config import registry
from stresslens.core.draws import Draws
from stresslens.core.torchvision_compat import torchvision

CLASSES = 10
IMAGES = {32: 512, 224: 64}
"""Images of a batch."""
BATCHES = 6
"""Batches in a turn: memory that one gives back is there for the next, as in a training."""
MIXING = ("mixup", "cutmix")


def kernel(size: int) -> int:
    """The side of a blur's kernel by default."""
    return max(3, round(0.05 * size) * 2 + 1)


def of_torchvision(size: int) -> dict[str, Any]:
    """torchvision's transforms by the names of ours."""
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR
    return {
        "flip": v2.RandomHorizontalFlip(),
        "crop": v2.RandomCrop(size, padding=4),
        "random_resized_crop": v2.RandomResizedCrop(size),
        "color_jitter": v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
        "rotation": v2.RandomRotation(15, bilinear),
        "erasing": v2.RandomErasing(),
        "grayscale": v2.RandomGrayscale(),
        "gaussian_blur": v2.GaussianBlur(kernel(size)),
        "rand_augment": v2.RandAugment(interpolation=bilinear),
        "trivial_augment": v2.TrivialAugmentWide(interpolation=bilinear),
        "auto_augment": v2.AutoAugment(interpolation=bilinear),
        "augmix": v2.AugMix(all_ops=False),
        "mixup": v2.MixUp(num_classes=CLASSES, alpha=0.2),
        "cutmix": v2.CutMix(num_classes=CLASSES),
    }


def of_kornia(size: int) -> dict[str, Any]:
    """kornia's augmentations of a batch by the names of ours; none where it is not installed."""
    if find_spec("kornia") is None:
        return {}
    import kornia.augmentation as K

    return {
        "flip": K.RandomHorizontalFlip(),
        "crop": K.RandomCrop((size, size), padding=4),
        "random_resized_crop": K.RandomResizedCrop((size, size)),
        "color_jitter": K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0),
        "rotation": K.RandomRotation(15.0, p=1.0),
        "erasing": K.RandomErasing(),
        "grayscale": K.RandomGrayscale(p=0.1),
        "gaussian_blur": K.RandomGaussianBlur((kernel(size),) * 2, (0.1, 2.0), p=1.0),
    }


def contestants(name: str, images: Tensor) -> dict[str, Callable[[], Any]]:
    """What makes a batch of one augmentation, by contestant."""
    from torchvision.transforms import v2

    n, size = len(images), images.shape[-1]
    labels, bound = torch.arange(n) % CLASSES, registry.resolve("augmentations", name)
    transform, kornia = of_torchvision(size)[name], of_kornia(size).get(name)
    to_float = v2.ToDtype(torch.float32, scale=True)

    def ours() -> Any:
        x = images.float().div_(255)
        return bound(x=x, y=labels, draws=Draws(0, torch.arange(n)), classes=CLASSES)

    found: dict[str, Callable[[], Any]] = {"stresslens": ours}
    if name in MIXING:
        found["torchvision"] = lambda: transform(images.float().div_(255), labels)
    else:
        found["torchvision"] = lambda: to_float(torch.stack([transform(image) for image in images]))
        if name not in ("rand_augment", "trivial_augment", "auto_augment", "augmix"):  # for uint8 only
            found["torchvision, floats"] = lambda: torch.stack([transform(x) for x in to_float(images)])
    if kornia is not None:
        found["kornia"] = lambda: kornia(images.float().div_(255))
    return found


def rates(name: str, size: int, turns: int) -> dict[str, float]:
    """Images a second of each contestant, the median over the turns; after one turn to warm up."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES[size], 3, size, size), generator=draws, dtype=torch.uint8)
    made = contestants(name, images)

    def counted(make: Callable[[], Any]) -> int:
        for _ in range(BATCHES):
            make()
        return BATCHES * len(images)

    found = in_turns({each: partial(counted, make) for each, make in made.items()}, turns=turns)
    floats = found.pop("torchvision, floats", 0.0)
    return {**found, "torchvision": max(found["torchvision"], floats)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("size", nargs="?", type=int, choices=[*IMAGES], help="default: both")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", action="append", help="an augmentation; may be repeated")
    given = parser.parse_args()
    torchvision()
    for size in [given.size] if given.size else IMAGES:
        print(
            f"{size}×{size}, n = {BATCHES} × {IMAGES[size]} images in a turn, {given.turns} turns, "
            f"{torch.get_num_threads()} threads; images a second"
        )
        for name in given.only or of_torchvision(size):
            found = rates(name, size, given.turns)
            peers = [
                f"{peer} {rate:9,.0f} ({found['stresslens'] / rate:.1f} times as fast)"
                for peer, rate in found.items()
                if peer != "stresslens"
            ]
            print(f"  {name:<20} {found['stresslens']:9,.0f}; {', '.join(peers)}", flush=True)


if __name__ == "__main__":
    main()
