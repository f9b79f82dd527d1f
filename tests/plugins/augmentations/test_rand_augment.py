"""Every operation is torchvision's, and known ones on images small enough to work out by hand; the
draws are an image's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.augmentations._operations import Operation, applied, for_channels
from stresslens.plugins.augmentations.rand_augment import KNOWN, NAMES, rand_augment

FACTOR = {"brightness": "Brightness", "colour": "Color", "contrast": "Contrast", "sharpness": "Sharpness"}
STRETCHED = {"autocontrast": "AutoContrast"}
MOVED = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
}
LEVELS = {"identity": "Identity", "posterize": "Posterize", "solarize": "Solarize", "equalize": "Equalize"}
HEIGHT, WIDTH = 33, 24


def done(name: str, x: Tensor, strength: float, sign: float = 1.0) -> Tensor:
    which, signs = torch.zeros(len(x), 1), torch.full((len(x), 1), sign)
    return applied(x, which, torch.full((len(x), 1), strength), signs, [name], KNOWN)


def torchvisions(name: str, x: Tensor, strength: float, sign: float) -> Tensor:
    """What RandAugment of torchvision does with an image at this share of its strongest."""
    vision = torchvision()
    full: dict[str, float] = {
        "rotate": 30.0,
        "translate_x": 150 / 331 * WIDTH,
        "translate_y": 150 / 331 * HEIGHT,
    }
    full |= {"shear_x": 0.3, "shear_y": 0.3} | dict.fromkeys(FACTOR, 0.9)
    amount = {"posterize": 8 - round(4 * strength), "solarize": 255 * (1 - strength)}.get(
        name, sign * strength * full.get(name, 0.0)
    )
    result: Tensor = vision.transforms.autoaugment._apply_op(
        x,
        {**FACTOR, **MOVED, **STRETCHED, **LEVELS}[name],
        amount,
        vision.transforms.InterpolationMode.BILINEAR,
        None,
    )
    return result


def test_all_fourteen_are_known() -> None:
    assert sorted(NAMES) == sorted([*FACTOR, *MOVED, *STRETCHED, *LEVELS])
    assert for_channels(NAMES, 3) == NAMES
    assert sorted(for_channels(NAMES, 1)) == sorted(set(NAMES) - {"colour"})


@pytest.mark.breadth(30)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("strength", [0.0, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("name", [*FACTOR, *MOVED, *STRETCHED, *LEVELS])
def test_an_operation_is_torchvisions(name: str, strength: float, sign: float) -> None:
    images = torch.randint(
        0, 256, (4, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    images[1] = images[1] // 4 + 40  # of low contrast
    images[2, 1] = 7  # a channel of one value
    own = done(name, images.double() / 255, strength, sign)
    for image, found in zip(images, own):
        if name in LEVELS:
            assert torch.allclose(found * 255, torchvisions(name, image, strength, sign).double(), atol=1e-6)
        else:
            assert torch.allclose(found, torchvisions(name, image.double() / 255, strength, sign), atol=1e-6)


def grey(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, None]


@pytest.mark.parametrize(
    ("name", "strength", "sign", "before", "after"),
    [
        ("brightness", 1.0, -1, grey([0.0, 0.5, 1.0]), grey([0.0, 0.05, 0.1])),
        ("brightness", 1.0, 1, grey([0.0, 0.5, 1.0]), grey([0.0, 0.95, 1.0])),
        ("contrast", 0.5, -1, grey([0.2, 0.4, 0.6]), grey([0.29, 0.4, 0.51])),
        ("posterize", 1.0, 1, grey([15 / 255, 16 / 255, 255 / 255]), grey([0.0, 16 / 255, 240 / 255])),
        ("posterize", 0.25, 1, grey([15 / 255, 16 / 255]), grey([14 / 255, 16 / 255])),
        ("solarize", 0.25, 1, grey([0.2, 0.75, 1.0]), grey([0.2, 0.25, 0.0])),
        ("autocontrast", 0.0, 1, grey([0.2, 0.4, 0.6]), grey([0.0, 0.5, 1.0])),
        (
            "sharpness",
            1.0,
            1,
            grey([0, 0, 0], [0, 0.13, 0], [0, 0, 0]),
            grey([0, 0, 0], [0, 0.05 + 0.08 * 1.9, 0], [0, 0, 0]),
        ),
        ("translate_x", 1.0, 1, grey([0.1, 0.2, 0.3]), grey([0.0, 0.1, 0.2])),
        ("translate_y", 1.0, -1, grey([0.1], [0.2], [0.3]), grey([0.2], [0.3], [0.0])),
        ("shear_x", 1.0, 1, grey([0.5, 0.5], [0.5, 1.0]), grey([0.5, 0.425], [0.725, 0.55])),
    ],
    ids=str,
)
def test_by_hand(name: str, strength: float, sign: float, before: Tensor, after: Tensor) -> None:
    assert torch.allclose(done(name, before, strength, sign), after, atol=1e-12)


def test_colour_pulls_apart_and_together() -> None:
    x = torch.tensor([0.5, 0.25, 1.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    luminance = 0.2989 * 0.5 + 0.587 * 0.25 + 0.114
    assert torch.allclose(done("colour", x, 1.0, -1), luminance + 0.1 * (x - luminance))


def test_equalize_of_two_halves() -> None:
    """600 pixels of 10, 400 of 20: a step is 600 // 255 = 2 pixels, so the brighter ones become
    (600 + 1) // 2, at most 255."""
    x = torch.cat([torch.full((600,), 10.0), torch.full((400,), 20.0)]).reshape(1, 1, 40, 25) / 255
    assert done("equalize", x, 0.0).unique().tolist() == [0.0, 1.0]
    few = x[..., :5]  # 200 pixels: too few for a step
    assert torch.equal(done("equalize", few, 0.0), few)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 3, 64])
def test_an_image_becomes_the_same_whatever_stands_beside_it(n: int, channels: int) -> None:
    x = torch.rand(200, channels, 17, 14, generator=torch.Generator().manual_seed(1))
    y, index = torch.zeros(200, dtype=torch.int64), torch.arange(50, 250)
    whole, _ = rand_augment(x, y, Draws(0, index), operations=3, magnitude=20)
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(2))[:n]
    part, _ = rand_augment(x[rows], y[rows], Draws(0, index[rows]), operations=3, magnitude=20)
    assert torch.equal(part, whole[rows])


def test_each_operation_is_drawn_equally_often_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[tuple[str, float], int] = {}

    def counting(name: str) -> Any:
        def amount(strength: Tensor, sign: Tensor, size: tuple[int, int]) -> Tensor:
            assert bool((strength == 0.5).all())
            return sign

        def change(x: Tensor, sign: Tensor) -> Tensor:
            for each in (-1.0, 1.0):
                counts[name, each] = counts.get((name, each), 0) + int((sign == each).sum())
            return x

        return Operation(change, amount)

    monkeypatch.setattr(
        "stresslens.plugins.augmentations.rand_augment.KNOWN", {name: counting(name) for name in NAMES}
    )
    x = torch.rand(7000, 3, 2, 2)
    changed, _ = rand_augment(x, torch.zeros(7000), Draws(0, torch.arange(7000)), operations=4, magnitude=15)
    assert torch.equal(changed, x)
    assert sum(counts.values()) == 4 * 7000
    assert len(counts) == 28
    assert all(abs(count - 1000) < 130 for count in counts.values())  # four standard errors


def test_magnitude_is_strength() -> None:
    x = torch.rand(300, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    y, far = torch.zeros(300), []
    for magnitude in (0.0, 10.0, 30.0):
        changed = rand_augment(x, y, Draws(0, torch.arange(300)), operations=1, magnitude=magnitude)[0]
        far.append(float((changed - x).abs().mean()))
    assert far == sorted(far)
    assert far[2] > 2 * far[0]
