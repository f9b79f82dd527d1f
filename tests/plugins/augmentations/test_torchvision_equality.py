"""Given the same parameters, each augmentation does to an image what torchvision does."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from stresslens.config import registry
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.augmentations import _colour, _geometry
from stresslens.plugins.augmentations.color_jitter import color_jitter
from stresslens.plugins.augmentations.erasing import erasing
from stresslens.plugins.augmentations.gaussian_blur import gaussian_blur
from stresslens.plugins.augmentations.grayscale import grayscale
from stresslens.plugins.augmentations.rotation import rotation

N = 60


def functional() -> Any:
    vision = torchvision()
    from torchvision.transforms import v2

    assert vision
    return v2.functional


def batch(channels: int = 3, height: int = 21, width: int = 16, n: int = N) -> tuple[Tensor, Tensor, Draws]:
    x = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(5)).double()
    return x, torch.zeros(n, dtype=torch.int64), Draws(3, torch.arange(n))


def column(values: Tensor) -> Tensor:
    return values[:, None, None, None].double()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_a_colour_change_is_torchvisions(name: str) -> None:
    x, _, draws = batch()
    x[0] = 0.3  # grey, of one value
    x[1, 1] = x[1, 0]  # two equal channels
    x[2] = 0
    amounts = draws.uniform(low=-0.5, high=0.5) if name == "hue" else draws.uniform(low=0, high=2.2)
    found = getattr(_colour, name)(x, column(amounts)).clamp(0, 1)
    reference = getattr(functional(), f"adjust_{name}")
    for image, amount, new in zip(x, amounts, found):
        expected = reference(image, float(amount))
        assert torch.allclose(new, expected.double(), atol=1e-5)  # torchvision's hue is float32


def test_color_jitter_is_torchvisions_steps_in_an_images_own_order() -> None:
    x, y, draws = batch()
    new, _ = color_jitter(x, y, draws, brightness=0.5, contrast=1.5, saturation=0.7, hue=0.3)
    drawn, functions = Draws(3, torch.arange(N)), functional()
    factors = [drawn.uniform(low=low, high=high) for low, high in ((0.5, 1.5), (0.0, 2.5), (0.3, 1.7))]
    factors.append(drawn.uniform(low=-0.3, high=0.3))
    orders = drawn.uniform(4).argsort(1)
    steps = [getattr(functions, f"adjust_{name}") for name in ("brightness", "contrast", "saturation", "hue")]
    for i, image in enumerate(x):
        for k in orders[i].tolist():
            image = steps[k](image, float(factors[k][i]))
        assert torch.allclose(new[i], image.double(), atol=1e-5)
    assert len({tuple(order) for order in orders.tolist()}) > 20  # of 24


def test_color_jitter_of_one_channel_has_brightness_and_contrast_only() -> None:
    x, y, draws = batch(1)
    assert torch.equal(color_jitter(x, y, draws, brightness=0.0, contrast=0.0)[0], x)


def test_a_pure_colour_turns_by_a_third_of_the_circle() -> None:
    red = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1)
    turned = _colour.hue(red, torch.full((1, 1, 1, 1), 1 / 3))
    assert torch.allclose(turned.flatten(), torch.tensor([0.0, 1, 0]), atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(21, 16), (16, 16)], ids=str)
def test_rotation_is_torchvisions(interpolation: Any, size: tuple[int, int]) -> None:
    x, y, draws = batch(3, *size)
    new, _ = rotation(x, y, draws, degrees=170, interpolation=interpolation)
    angles = Draws(3, torch.arange(N)).uniform(low=-170, high=170)
    reference, mode = functional().rotate, torchvision().transforms.InterpolationMode(interpolation)
    for image, angle, found in zip(x, angles, new):
        assert torch.allclose(found, reference(image, float(angle), mode), atol=1e-5)
    assert angles.min() < -150
    assert angles.max() > 150


def test_a_quarter_turn_moves_pixels() -> None:
    x = torch.tensor([[0.1, 0.2], [0.3, 0.4]])[None, None]
    turned = _geometry.rotate(x, torch.full((1, 1, 1, 1), 90.0), "nearest")
    assert torch.equal(turned[0, 0], torch.tensor([[0.2, 0.4], [0.1, 0.3]]))


def test_grayscale_is_torchvisions() -> None:
    x, y, draws = batch()
    new, _ = grayscale(x, y, draws, chance=1.0)
    assert torch.allclose(new, functional().rgb_to_grayscale(x, 3), atol=1e-7)


@pytest.mark.parametrize("kernel", [1, 3, 9])
def test_gaussian_blur_is_torchvisions(kernel: int) -> None:
    x, y, draws = batch()
    new, _ = gaussian_blur(x, y, draws, kernel_size=kernel, sigma=(0.3, 4.0))
    sigmas = Draws(3, torch.arange(N)).uniform(low=0.3, high=4.0)
    for image, sigma, found in zip(x, sigmas, new):
        expected = functional().gaussian_blur(image, [kernel, kernel], [float(sigma)] * 2)
        assert torch.allclose(found, expected, atol=1e-6)


def test_gaussian_blur_of_a_point_by_hand() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    new, _ = gaussian_blur(x, torch.zeros(1), Draws(0, torch.arange(1)), kernel_size=3, sigma=(1.0, 1.0))
    side = torch.tensor([-0.5, 0.0, -0.5]).exp()
    side /= side.sum()
    assert torch.allclose(new[0, 0, 1:4, 1:4], side[:, None] * side, atol=1e-7)


@pytest.mark.parametrize(("side", "kernel"), [(8, 3), (32, 5), (96, 11), (224, 23)])
def test_the_kernel_is_about_a_tenth_of_the_side(side: int, kernel: int) -> None:
    x, y, _ = batch(1, side, side, n=1)
    given, own = (
        gaussian_blur(x, y, Draws(0, torch.arange(1)), kernel_size=size, sigma=(1.0, 1.0))[0]
        for size in (kernel, None)
    )
    assert torch.equal(given, own)


# --- erasing ------------------------------------------------------------------------------------------------


def erased(**options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Images of ones, what was made of them, and where they changed (N, H, W)."""
    x = torch.ones(3000, 3, 30, 20)
    new, _ = erasing(x, torch.zeros(3000), Draws(1, torch.arange(3000)), chance=1.0, **options)
    return x, new, (new != x).any(1)


def test_erasing_erases_one_box_within_its_ranges() -> None:
    x, new, changed = erased(scale=(0.05, 0.2), ratio=(0.5, 2.0))
    heights, widths = changed.any(2).sum(1), changed.any(1).sum(1)
    assert torch.equal(changed, changed.any(2)[:, :, None] & changed.any(1)[:, None])
    assert torch.equal(new, x.masked_fill(changed[:, None], 0))
    share = heights * widths / 600
    assert share.min() > 0.035  # sides are rounded
    assert share.max() < 0.235
    assert abs(share.double().mean() - 0.125) < 0.01
    assert (heights / widths).log().double().mean().abs() < 0.02  # as often upright as lying
    assert changed.any(0).all()
    assert changed[:, :15].sum() == pytest.approx(int(changed[:, 15:].sum()), rel=0.1)


def test_erasing_is_torchvisions_erase_of_its_box() -> None:
    x, new, changed = erased()
    for image, found, where in itertools.islice(zip(x, new, changed), 50):
        rows, columns = where.any(1).nonzero()[:, 0], where.any(0).nonzero()[:, 0]
        box = (int(rows[0]), int(columns[0]), len(rows), len(columns))
        assert torch.equal(found, functional().erase(image, *box, torch.zeros(3, 1, 1)))


def test_erasing_with_noise_and_with_a_value() -> None:
    _, new, changed = erased(value="random")
    noise = new[changed[:, None].expand_as(new)]
    assert abs(float(noise.mean()) - 0.5) < 0.01
    assert float(noise.min()) >= 0
    assert noise.unique().numel() > 100_000
    assert erased(value=0.25)[1].unique().tolist() == [0.25, 1.0]


def test_a_box_that_never_fits_erases_nothing() -> None:
    assert not erased(scale=(1.0, 1.0))[2].any()


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"erasing": {"scale": [0.5, 0.1]}}, "first number"),
        ({"erasing": {"scale": [0.0, 0.1]}}, "greater than 0"),
        ({"erasing": {"value": "noise"}}, "noise"),
        ({"gaussian_blur": {"kernel_size": 4}}, "odd"),
        ({"gaussian_blur": {"sigma": 2.0}}, "valid"),
        ({"color_jitter": {"hue": 0.7}}, "0.5"),
        ({"color_jitter": {"brightness": -1}}, "greater"),
        ({"rotation": {"degrees": 270}}, "180"),
        ({"grayscale": {"p": 0.2}}, "chance"),
        ({"flip": {"chance": 1.5}}, "less than or equal to 1"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_in_words(value: Any, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        registry.resolve("augmentations", value)
