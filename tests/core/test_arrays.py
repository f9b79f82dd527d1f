"""Images as people have them: what is taken, as what, and what is refused in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import Image
from torch import nn

import stresslens as sl
from stresslens.core.arrays import as_shaped, image_tensor
from stresslens.core.errors import DataError, Notice

RANDOM = np.random.default_rng(0)


def bytes_of(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    "shape",
    [(5, 8, 9, 3), (5, 28, 28, 1), (5, 8, 9, 4), (5, 9, 5, 3), (5, 32, 32, 4), (5, 16, 16, 13), (5, 6, 6, 2)],
)
@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_channels_last(shape: tuple[int, ...], of: Any) -> None:
    images = bytes_of(*shape)
    x = image_tensor(of(images))
    assert np.array_equal(x.numpy(), images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "shape",
    [(5, 3, 8, 9), (5, 1, 4, 4), (5, 3, 4, 4), (5, 4, 32, 32), (5, 13, 16, 16), (5, 2, 1, 1)],
)
@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_channels_first(shape: tuple[int, ...], of: Any) -> None:
    images = bytes_of(*shape)
    assert np.array_equal(image_tensor(of(images)).numpy(), images)


@pytest.mark.parametrize("shape", [(5, 8, 9, 10), (5, 3, 3, 3), (5, 4, 4, 3), (5, 8, 3, 3), (5, 1, 1, 3)])
def test_a_shape_that_says_nothing_is_refused_of_arrays_and_taken_of_tensors(shape: tuple[int, ...]) -> None:
    images = bytes_of(*shape)
    with pytest.raises(DataError, match="does not say whether their channels are first"):
        image_tensor(images)
    assert torch.equal(image_tensor(torch.from_numpy(images)), torch.from_numpy(images))


@pytest.mark.parametrize(
    ("shape", "count", "found"),
    [
        ((7, 8, 9), None, (7, 1, 8, 9)),
        ((7, 8, 9), 7, (7, 1, 8, 9)),
        ((1, 8, 9), None, (1, 1, 8, 9)),
        ((8, 9), None, (1, 1, 8, 9)),
        ((8, 9, 3), None, (1, 3, 8, 9)),
        ((8, 9, 3), 1, (1, 3, 8, 9)),
        ((3, 8, 9), 1, (1, 3, 8, 9)),
        ((3, 8, 9), 3, (3, 1, 8, 9)),
        ((28, 28, 1), None, (1, 1, 28, 28)),
    ],
)
def test_grey_images_and_single_images(shape: Any, count: int | None, found: tuple[int, ...]) -> None:
    assert image_tensor(bytes_of(*shape), count).shape == found


def test_three_grey_images_or_one_of_three_channels() -> None:
    with pytest.raises(DataError, match=r"one image of 3 channels, or are these 3 grey images"):
        image_tensor(torch.rand(3, 8, 8))


def test_types_of_numbers() -> None:
    assert image_tensor(np.ones((2, 1, 4, 5), bool)).unique().tolist() == [255]
    assert image_tensor(torch.rand(2, 1, 4, 5).half()).dtype == torch.float32
    assert image_tensor(torch.rand(2, 1, 4, 5).bfloat16()).dtype == torch.float32
    assert image_tensor(np.ones((2, 1, 4, 5))).dtype == torch.float64
    assert not image_tensor(torch.rand(2, 1, 4, 5, requires_grad=True)).requires_grad
    for images, said in (
        (np.full((2, 1, 4, 5), 200), r"int64; expected floats .* from 200 to 200; if 255 is white, convert"),
        (np.full((2, 1, 4, 5), 900, np.uint16), "from 900 to 900; divide them by the value of white"),
        (np.full((2, 1, 4, 5), -3, np.int32), "from -3 to -3; divide"),
        (np.ones((2, 1, 4, 5), complex), "images are torch.complex128"),
        (np.full((2, 1, 4, 5), "x"), "not an array of numbers"),
        ([], "no images"),
        (np.zeros((0, 3, 8, 8)), "no images"),
        ({"a": 1}, "images are a dict"),
        (None, "images are a NoneType"),
    ):
        with pytest.raises(DataError, match=said):
            image_tensor(images)


def test_lists_and_object_arrays() -> None:
    images = bytes_of(5, 8, 9, 3)
    objects = np.empty(5, object)
    objects[:] = list(images)
    for each in (list(images), tuple(images), images.tolist(), objects):
        if isinstance(each, list) and isinstance(each[0], list):  # numbers alone have no type of image
            with pytest.raises(DataError, match="if 255 is white, convert"):
                image_tensor(each)
        else:
            assert np.array_equal(image_tensor(each).numpy(), images.transpose(0, 3, 1, 2))
    tensors = [torch.rand(3, 4, 4) for _ in range(3)]
    assert torch.equal(image_tensor(tensors), torch.stack(tensors))
    with pytest.raises(DataError, match=r"the first is \(8, 9, 3\), image 1 is \(8, 8, 3\)"):
        image_tensor([images[0], images[1][:, :8]])


def test_pictures_and_files(tmp_path: Path) -> None:
    pixels = bytes_of(3, 8, 9, 3)
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for image, file in zip(pixels, files):
        Image.fromarray(image).save(file)
    expected = pixels.transpose(0, 3, 1, 2)
    opened = [Image.open(file) for file in files]
    for given in (opened, files, [str(file) for file in files], [opened[0], files[1], files[2]]):
        assert np.array_equal(image_tensor(given).numpy(), expected)
    assert np.array_equal(image_tensor(opened[1]).numpy(), expected[1:2])
    assert image_tensor(Image.fromarray(pixels[0, ..., 0])).shape == (1, 1, 8, 9)
    palette = Image.fromarray(pixels[0]).quantize(8)
    colours = np.asarray(palette.convert("RGB"))
    assert np.array_equal(image_tensor(palette)[0].numpy().transpose(1, 2, 0), colours)
    clear = Image.new("RGBA", (9, 8), (0, 0, 0, 0))
    assert image_tensor(clear).unique().tolist() == [255]  # transparent parts are on white, as in files


def test_pictures_that_cannot_be_taken(tmp_path: Path) -> None:
    small, large = Image.new("L", (4, 5)), Image.new("RGB", (6, 5))
    (tmp_path / "text.png").write_text("no picture")
    for given, said in (
        ([small, small, large], r"the first is 4×5 pixels, image 2 is 6×5; resize"),
        ([tmp_path / "text.png"], "text.png cannot be read as an image: not an image"),
        ([tmp_path / "none.png"], "none.png cannot be read as an image: No such file"),
        (tmp_path, "is a folder"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
    ):
        with pytest.raises(DataError, match=said):
            image_tensor(given)


def test_an_array_of_a_known_shape_needs_no_guess() -> None:
    images = bytes_of(5, 4, 4, 3)
    assert np.array_equal(as_shaped(images, (3, 4, 4), "images").numpy(), images.transpose(0, 3, 1, 2))
    assert np.array_equal(as_shaped(images, (4, 4, 3), "images").numpy(), images)
    assert as_shaped(images[..., 0], (1, 4, 4), "images").shape == (5, 1, 4, 4)


class Shades(torch.nn.Module):
    """Logits (grey, -grey) of the mean over channels and pixels; only images of three channels and 8×9
    pixels are taken."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (3, 8, 9)
        grey = x.mean((1, 2, 3)) - 0.5
        return torch.stack([grey, -grey], 1)


def test_every_function_takes_them_by_the_same_rule() -> None:
    last = bytes_of(40, 8, 9, 3)
    last[::2] //= 2
    first = torch.from_numpy(np.ascontiguousarray(last.transpose(0, 3, 1, 2)))
    net, labels = Shades(), (np.arange(40) + 1) % 2
    assert np.array_equal(sl.predict(net, last), sl.predict(net, first))
    assert np.array_equal(sl.predict(net, [Image.fromarray(each) for each in last]), sl.predict(net, first))
    assert sl.evaluate(net, last, labels) == sl.evaluate(net, first, labels)
    options = {"radii": [0.1], "protocol": ["fgsm"], "audit": False}
    found = [sl.attack(net, images, labels, **options) for images in (last, first)]
    assert np.array_equal(found[0].minimal_radius, found[1].minimal_radius)
    maps = [sl.explain(net, images[:3], "saliency").maps for images in (last, first)]
    assert maps[0].shape == (3, 8, 9)
    assert np.array_equal(*maps)
    recounts = [
        sl.verify(net, 255 - images, images, labels, eps=1.0).broken.tolist() for images in (last, first)
    ]
    assert recounts[0] == recounts[1]
    data = [sl.Data.from_arrays(images, labels) for images in (last, first)]
    assert data[0].fingerprint == data[1].fingerprint
    assert sl.predict(net, last[0]).shape == (1, 2)


ONE = 1 + 1.2e-7


@pytest.mark.parametrize("value", [ONE, -1e-8, 1 + 9e-6])
def test_what_rounding_carries_out_of_range_is_clipped(value: float) -> None:
    images = torch.rand(40, 3, 8, 9)
    images[3, 1, 2, 2] = value
    clipped, kept = images.clamp(0, 1), images.clone()
    net, labels = Shades(), torch.arange(40) % 2
    assert np.array_equal(sl.predict(net, images), sl.predict(net, clipped))
    assert sl.evaluate(net, images, labels) == sl.evaluate(net, clipped, labels)
    sl.attack(net, images, labels, radii=[0.1], protocol=["fgsm"], audit=False)
    sl.attack(net, sl.Split(images, labels, 1.0), radii=[0.1], protocol=["fgsm"], audit=False)
    data = sl.Data.from_arrays(images, labels)
    assert 0 <= float(data.train.images[:].min()) <= float(data.train.images[:].max()) <= 1
    assert torch.equal(images, kept)  # the caller's own


@pytest.mark.parametrize(
    ("value", "shown"), [(1.00002, r"1\.00002\)"), (1.0000111, r"1\.00001\)"), (-3e-5, r"\(-3e-05 to")]
)
def test_what_is_further_out_is_refused_with_a_figure_that_shows_it(value: float, shown: str) -> None:
    images = torch.rand(40, 3, 8, 9, dtype=torch.float64)
    images[3, 1, 2, 2] = value
    for call in (
        lambda: sl.predict(Shades(), images),
        lambda: sl.Data.from_arrays(images, torch.arange(40) % 2),
        lambda: sl.evaluate(Shades(), images, torch.arange(40) % 2),
        lambda: sl.attack(Shades(), images, torch.arange(40) % 2, radii=[0.1]),
    ):
        with pytest.raises(DataError, match=rf"1 image leaves \[0, 1\].*{shown}.*first at index 3"):
            call()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_kinds_of_arrays() -> None:
    images = bytes_of(5, 1, 4, 4).astype(np.float64) / 255
    for given in (
        images.astype(">f8"),
        images.astype(np.longdouble),
        np.ma.MaskedArray(images),
        torch.from_numpy(images).to_sparse(),
        list(torch.from_numpy(images).to_sparse()),
        list(images.astype(">f8")),
    ):
        assert np.array_equal(image_tensor(given).numpy(), images)
    quantized = torch.quantize_per_tensor(torch.from_numpy(images).float(), 1 / 255, 0, torch.quint8)
    assert np.allclose(image_tensor(quantized).numpy(), images)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_arrays_without_all_values_are_refused() -> None:
    images = torch.rand(5, 1, 4, 4)
    masked = np.ma.MaskedArray(images.numpy(), images.numpy() > 0.5)
    for given in (masked, list(masked)):
        with pytest.raises(DataError, match=r"masked array.*images.filled\(value\)"):
            image_tensor(given)
    with pytest.raises(DataError, match="device meta"):
        image_tensor(images.to("meta"))
    nested = torch.nested.nested_tensor([images[0, 0], images[0, 0, :2]])
    with pytest.raises(DataError, match="nested, each part of its own shape"):
        image_tensor(nested)


@pytest.mark.parametrize(
    "images",
    [
        [np.zeros((8, 6), np.uint8), np.zeros((9, 8), np.uint8)],
        [np.zeros((8, 6, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)],
        [np.zeros((8, 6)), np.zeros((9, 8))],
        [torch.zeros(3, 8, 6), torch.zeros(3, 9, 9)],
        [np.zeros((8, 6, 3)), np.zeros((9, 8, 3))],
        [np.zeros((3, 8, 6), np.uint8), np.zeros((3, 9, 8), np.uint8)],
        [Image.new("L", (6, 8)), Image.new("L", (9, 9))],
    ],
    ids=[
        "grey",
        "colours",
        "floats",
        "tensors",
        "floats with channels last",
        "bytes with channels first",
        "pictures",
    ],
)
def test_images_of_several_sizes_are_refused_with_what_makes_them_one(images: list[Any]) -> None:
    with pytest.raises(DataError, match="resize them to one size") as error:
        image_tensor(images)
    call = re.search(r"images = (\[.*\])", str(error.value))
    assert call is not None
    resized = eval(call[1], {"images": images, "np": np, "torch": torch, "PIL": PIL, "F": nn.functional})
    assert image_tensor(resized, 2).shape[2:] == (8, 6)


def test_images_of_several_channels_are_refused() -> None:
    with pytest.raises(DataError, match="give all the same number of channels"):
        image_tensor([torch.zeros(3, 8, 8), torch.zeros(1, 8, 8)])


@pytest.mark.parametrize("white", [1, 16])
def test_bytes_that_are_all_dark_get_a_notice(white: int) -> None:
    """`load_digits().images` as bytes, and masks of 0 and 1, are not meant to be nearly black."""
    images = np.zeros((5, 8, 8), np.uint8)
    images[0, 0, 0] = white
    with pytest.warns(Notice, match=f"the largest value of these is {white}: .* give images / {white}"):
        assert image_tensor(images).dtype == torch.uint8
    assert image_tensor(images / white).max() == 1
    images[0, 0, 0] = 17
    image_tensor(images)
    image_tensor(np.zeros((5, 8, 8), np.uint8))
