"""Arrays of pictures in npz and npy files: how they are found, and what is refused in words."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError

Arrays = dict[str, Any]


def pixels(n: int = 20, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *(shape or (6, 6))), dtype=np.uint8)


def classes(n: int = 20) -> np.ndarray:
    return np.arange(n) % 2


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Data]:
    """Reads the arrays from an npz file of this working folder: `load(arrays, **options)`."""
    monkeypatch.chdir(tmp_path)

    def read(arrays: Arrays, **options: Any) -> Data:
        np.savez("set.npz", **arrays)
        return load_path("set.npz", **options)

    return read


def load_path(path: str, **options: Any) -> Data:
    data: Data = registry.resolve("datasets", {"npz": {"path": path, **options}})()
    return data


NAMES = [
    ("{part}_images", "{part}_labels", "train val test"),  # MedMNIST
    ("x_{part}", "y_{part}", "train valid test"),  # Keras
    ("X_{part}", "Y_{part}", "train dev test"),
    ("{part}X", "{part}Y", "train val test"),
    ("images_{part}", "labels_{part}", "training validation testing"),
    ("{part}-data", "{part}.targets", "train val test"),
]


@pytest.mark.parametrize(("images", "labels", "parts"), NAMES, ids=lambda value: str(value))
def test_arrays_of_parts_are_found_by_their_names(
    images: str, labels: str, parts: str, load: Callable[..., Data]
) -> None:
    arrays = {}
    for n, part in zip((20, 8, 12), parts.split()):
        arrays |= {images.format(part=part): pixels(n), labels.format(part=part): classes(n)[:, None]}
    data = load(arrays)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 20,
        "validation": 8,
        "test": 12,
    }
    assert data.name == "set.npz"
    assert data.classes == ("0", "1")
    assert data.parts == "train, validation, test as given"
    assert data.test is not None
    assert np.array_equal(data.test.images[:, 0].numpy(), pixels(12))
    assert np.array_equal(data.test.labels.numpy(), classes(12))


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels"), ("data", "target"), ("arr_0", "arr_1")])
def test_arrays_of_all_pictures_are_divided(names: tuple[str, str], load: Callable[..., Data]) -> None:
    data = load({names[0]: pixels(), names[1]: classes()}, test=4, validation=4)
    assert [len(split) for split in data.splits.values()] == [12, 4, 4]
    assert data.parts == "validation and test drawn from all images"


def test_a_missing_validation_part_is_drawn_from_train(load: Callable[..., Data]) -> None:
    arrays = {"x_train": pixels(), "y_train": classes(), "x_test": pixels(6), "y_test": classes(6)}
    data = load(arrays)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 16,
        "validation": 4,
        "test": 6,
    }


def test_arrays_are_named_by_the_user(load: Callable[..., Data]) -> None:
    arrays = {"a": pixels(), "b": classes(), "c": pixels(6), "d": classes(6), "e": np.zeros(3)}
    data = load(arrays, image={"train": "a", "test": "c"}, label={"train": "b", "test": "d"})
    assert data.test is not None
    assert len(data.test) == 6
    assert data.notes == ("arrays that were left out: e",)
    assert len(load(arrays, image="a", label="b", test=0, validation=0).train) == 20


CHANNELS = [
    ((6, 6), "auto", (1, 6, 6)),
    ((3, 6, 6), "auto", (3, 6, 6)),
    ((6, 6, 3), "auto", (3, 6, 6)),
    ((6, 6, 1), "auto", (1, 6, 6)),
    ((6, 5, 3), "auto", (3, 6, 5)),
    ((3, 5, 3), "first", (3, 5, 3)),
    ((3, 5, 3), "last", (3, 3, 5)),
    ((5, 6, 6), "first", (5, 6, 6)),
    ((6, 6, 5), "last", (5, 6, 6)),
]


@pytest.mark.parametrize(("shape", "channels", "expected"), CHANNELS, ids=str)
def test_channels_are_told_apart(
    shape: tuple[int, ...], channels: str, expected: tuple[int, ...], load: Callable[..., Data]
) -> None:
    x = pixels(20, *shape)
    data = load({"x": x, "y": classes()}, channels=channels, test=0, validation=0)
    assert data.shape == expected
    first = x[:, None] if len(shape) == 2 else x if shape == expected else x.transpose(0, 3, 1, 2)
    assert np.array_equal(data.train.images.numpy(), first)


def test_a_shape_that_does_not_say_where_channels_are_is_refused(load: Callable[..., Data]) -> None:
    with pytest.raises(DataError, match=r"x has the shape \(20, 3, 5, 3\).*set `channels: first`"):
        load({"x": pixels(20, 3, 5, 3), "y": classes()})


def test_labels_are_words_numbers_or_one_hot_rows(load: Callable[..., Data]) -> None:
    words = np.array(["cat", "dog"])[classes()]
    for labels, expected in (
        (words, ("cat", "dog")),
        (words.astype("S3"), ("cat", "dog")),
        (classes() * 5 + 2, ("2", "7")),
        (classes().astype(float), ("0", "1")),
        (np.eye(2)[classes()], ("0", "1")),
    ):
        data = load({"x": pixels(), "y": labels}, test=0, validation=0)
        assert data.classes == expected
        assert np.array_equal(data.train.labels.numpy(), classes())


def test_names_of_classes_are_an_option_or_an_array(load: Callable[..., Data]) -> None:
    arrays = {"x": pixels(), "y": classes()}
    assert load(arrays, names=["cat", "dog", "owl"]).classes == ("cat", "dog", "owl")
    assert load({**arrays, "class_names": np.array(["cat", "dog"])}).classes == ("cat", "dog")
    assert load(arrays, names=["cat", "dog"], classes=["dog", "cat"]).classes == ("dog", "cat")
    data = load({**arrays, "class_names": np.array(["cat", "dog"]), "masks": pixels()})
    assert data.notes == ("arrays that were left out: masks",)


def test_floats_are_in_0_to_1(load: Callable[..., Data]) -> None:
    x = pixels().astype(np.float32) / 255
    data = load({"x": x, "y": classes()}, test=0, validation=0)
    assert data.train.scale == 1
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(x))
    with pytest.raises(DataError, match=r"set.npz: x and y: 20 images leave \[0, 1\].*divide by 255"):
        load({"x": x * 255, "y": classes()})


def test_npy_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    for name, values in (("x", pixels()), ("y", classes()), ("other", pixels(6)), ("truth", classes(6))):
        np.save(f"set/{name}.npy", values)
    assert load_path("set").name == "set"
    data = load_path("set/other.npy", label="truth.npy", test=0, validation=0)
    assert (len(data.train), data.name) == (6, "other.npy")
    assert len(load_path("set/x.npy", test=0, validation=0).train) == 20


def test_the_path_of_an_npz_file_is_a_data_set(load: Callable[..., Data], type_: Any) -> None:
    load({"x": pixels(40), "y": classes(40)})
    code, out, _ = type_("data", "stats", "set.npz", "--json")
    assert code == 0
    assert '"name": "set.npz"' in out


OBJECTS = np.array([{"a": 1}, None], dtype=object)
XY = {"x": pixels(), "y": classes()}
MISTAKES: list[tuple[Arrays, dict[str, Any], str]] = [
    ({"a": pixels(), "y": classes()}, {}, "no array is called as pictures usually are; say which: `image: "),
    ({"x": pixels(), "b": classes()}, {}, "no array is called as labels usually are; say which: `label: "),
    ({**XY, "images": pixels()}, {}, "x and images may both be meant by image; say which: `image: images`"),
    ({"x_train": pixels(), "y_test": classes()}, {}, "the part train has pictures and no labels"),
    ({"x_test": pixels(), "y_test": classes()}, {}, "no train part to learn from"),
    ({**XY, "x_train": pixels(), "y_train": classes()}, {}, r"arrays of parts \(train\) and x beside them"),
    ({"x": pixels(), "y": classes() + 0.5}, {}, "y: label 0 is 0.5; expected words, or whole numbers"),
    ({"x": pixels(), "y": pixels(20, 14)}, {}, "y has 14 values for each picture"),
    ({"x": pixels(), "y": classes(19)}, {}, "x and y: 20 images but 19 labels"),
    ({"x": pixels(20, 6, 6, 3, 2), "y": classes()}, {}, "x has the shape .* which are no pictures"),
    ({"x": np.array(["a"] * 20), "y": classes()}, {}, "x has the shape .* which are no pictures"),
    ({"x": pixels(0, 6, 6), "y": classes(0)}, {}, r"x is empty: its shape is \(0, 6, 6\)"),
    ({"x": pixels().astype(np.uint16), "y": classes()}, {}, "x: images are torch.uint16"),
    ({"x": np.full((20, 6, 6), np.nan), "y": classes()}, {}, "x and y: 20 images hold NaN"),
    ({"x": pixels(), "y": OBJECTS}, {}, r"y.npy holds Python objects, which could run code"),
    ({"x": pixels(), "y": np.zeros(20, int)}, {}, "set.npz: 1 class"),
    ({"x": pixels(), "y": np.array(1)}, {}, "y is a single value; expected a label for each picture"),
    ({"x": pixels(), "y": classes() - 1}, {"names": ["a", "b"]}, "label -1"),
]


@pytest.mark.parametrize(("arrays", "options", "says"), MISTAKES, ids=[says for *_, says in MISTAKES])
def test_what_is_no_data_set_is_refused_in_words(
    arrays: Arrays, options: dict[str, Any], says: str, load: Callable[..., Data]
) -> None:
    with pytest.raises((DataError, ConfigError), match=says) as caught:
        load(arrays, **options)
    assert "set.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "xx"}, "has no array 'xx'; did you mean 'x'"),
        ({"label": {"trian": "y"}}, "'trian' is no part; valid: train, validation, test"),
        ({"image": {"train": "x", "test": "x"}}, "image: 'x' is named for two parts"),
        ({"names": ["a", "a"]}, "each class needs its own name"),
        ({"classes": ["0", "3"]}, "has no class '3'"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_arrays_are_refused(
    options: dict[str, Any], says: str, load: Callable[..., Data]
) -> None:
    with pytest.raises(ConfigError, match=says):
        load(XY, **options)


def test_files_that_are_no_npz_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"there is no set\.npz \(working folder"):
        load_path("set.npz")
    Path("set.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"set\.npz is no npz file, or it is damaged"):
        load_path("set.npz")
    with zipfile.ZipFile("set.npz", "w") as archive:
        archive.writestr("../../x.npy", b"no array")
    with pytest.raises(DataError, match=r"set\.npz: \.\./\.\./x\.npy is no array, or it is damaged"):
        load_path("set.npz")
    np.savez("set.npz", **XY)
    with zipfile.ZipFile("set.npz", "a") as archive:
        archive.writestr("README.txt", b"how these were made")
    assert load_path("set.npz").classes == ("0", "1")
    with pytest.raises(DataError, match=r"there is no x\.npy \(working folder"):
        load_path("x.npy")
    Path("empty").mkdir()
    with pytest.raises(DataError, match="empty holds no arrays"):
        load_path("empty")
    np.savez("cut.npz", x=pixels(), y=classes())
    content = Path("cut.npz").read_bytes()
    for length in (10, 200, len(content) - 40):
        Path("cut.npz").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cut\.npz"):
            load_path("cut.npz")
    for place in range(0, len(content), 97):
        Path("cut.npz").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        with suppress(DataError, ConfigError):
            load_path("cut.npz")


def test_an_array_larger_than_the_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    head = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 1000, 1000)}
    with zipfile.ZipFile("set.npz", "w") as archive:
        with archive.open("x.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, head)
        with archive.open("y.npy", "w") as file:
            np.save(file, classes())
    with pytest.raises(DataError, match=r"x takes 1,000,000 GB, and this computer has"):
        load_path("set.npz")
