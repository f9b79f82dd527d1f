"""Splits, batches, divisions and fingerprints, mostly by property."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stresslens.core import data as module
from stresslens.core.cache_folder import cache_root
from stresslens.core.data import Batch, Data, Split, data_root
from stresslens.core.draws import Draws
from stresslens.core.errors import DataError

QUICK = settings(max_examples=25, deadline=None)


def split(n: int = 12, classes: int = 3, *, dtype: torch.dtype = torch.uint8, seed: int = 0) -> Split:
    """n different images of 1×2×3 pixels; image i holds i in its first pixel."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 2, 3), generator=generator, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(n)
    labels = torch.arange(n) % classes
    return Split(images, labels) if dtype == torch.uint8 else Split(images.to(dtype) / 255, labels, 1.0)


def joined(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*batches)))


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for x, y in zip(left, right) for a, b in zip(x, y)
    )


# --- what a split refuses -----------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        pytest.param(
            torch.zeros(2, 4, 4), LABELS, "expected \\(images, channels, height, width\\)", id="three axes"
        ),
        pytest.param(torch.zeros(0, 1, 4, 4), LABELS[:0], "none of them 0", id="no images"),
        pytest.param(torch.zeros(2, 1, 0, 4), LABELS, "none of them 0", id="no pixels"),
        pytest.param(
            torch.zeros(2, 1, 4, 4, dtype=torch.int64), LABELS, "images are torch.int64", id="int64 images"
        ),
        pytest.param(
            torch.zeros(2, 1, 4, 4, dtype=torch.float16), LABELS, "images are torch.float16", id="half images"
        ),
        pytest.param(torch.zeros(2, 1, 4, 4), LABELS.int(), "labels are torch.int32", id="int32 labels"),
        pytest.param(torch.zeros(2, 1, 4, 4), LABELS.float(), "labels are torch.float32", id="float labels"),
        pytest.param(
            torch.zeros(2, 1, 4, 4), LABELS[:, None], "of shape \\(2, 1\\)", id="labels of two axes"
        ),
        pytest.param(torch.zeros(3, 1, 4, 4), LABELS, "3 images but 2 labels", id="lengths"),
    ],
)
def test_a_split_refuses_what_it_cannot_use(images: torch.Tensor, labels: torch.Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Split(images, labels)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_split_names_the_first_image_that_is_not_finite(value: float) -> None:
    images = torch.zeros(4, 1, 2, 2)
    images[2, 0, 1, 1] = images[3, 0, 0, 0] = value
    with pytest.raises(DataError, match="2 images hold NaN or infinity, first at index 2"):
        Split(images, torch.zeros(4, dtype=torch.int64), 1.0)


def test_select_keeps_the_order_given() -> None:
    chosen = split().select([7, 0, 3])
    assert chosen.images[:, 0, 0, 0].tolist() == [7, 0, 3]
    assert chosen.labels.tolist() == [1, 0, 0]
    assert chosen.shape == (1, 2, 3)


# --- what a data set refuses --------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_named_with_its_image(label: int) -> None:
    validation = split()
    validation.labels[5] = label
    with pytest.raises(
        DataError, match=rf"validation label {label} \(image 5\) is out of range; 3 classes .* 0 to 2"
    ):
        Data(split(), validation, None, ("a", "b", "c"))


def test_one_class_is_not_a_classification() -> None:
    with pytest.raises(DataError, match="at least two"):
        Data(split(4, 1), None, None, ("a",))
    with pytest.raises(DataError, match="every training image has the same label"):
        Data(split(4, 1), None, None, ("a", "b"))


def test_splits_of_different_shapes_are_refused() -> None:
    wide = Split(torch.zeros(2, 1, 2, 4, dtype=torch.uint8), LABELS)
    with pytest.raises(DataError, match=r"test images are \(1, 2, 4\), training images \(1, 2, 3\)"):
        Data(split(), None, wide, ("a", "b", "c"))


def test_only_the_splits_that_are_there_are_named() -> None:
    assert list(Data(split(), None, split(), ("a", "b", "c")).splits) == ["train", "test"]


# --- from one's own arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_from_arrays_takes_grey_images_and_any_integer_labels(dtype: type) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 5), dtype=np.uint8)
    data = Data.from_arrays(images, (np.arange(50) % 5).astype(dtype), validation=10, test=0.2)
    assert data.shape == (1, 4, 5)
    assert {name: len(part) for name, part in data.splits.items()} == {
        "train": 30,
        "validation": 10,
        "test": 10,
    }
    assert data.classes == ("0", "1", "2", "3", "4")
    assert data.train.scale == 255
    assert all(part.labels.bincount().tolist() == [len(part) // 5] * 5 for part in data.splits.values())


def test_from_arrays_keeps_images_with_their_labels() -> None:
    labels = np.arange(60) % 3
    images = (labels[:, None, None, None] * np.ones((60, 3, 2, 2)) / 4).astype(np.float32)
    data = Data.from_arrays(images, labels, classes=["a", "b", "c"], validation=0, test=15)
    assert data.validation is None
    assert data.train.scale == 1
    for part in data.splits.values():
        assert torch.equal((part.images[:, 0, 0, 0] * 4).round().long(), part.labels)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-1, 1)])
def test_from_arrays_refuses_floats_outside_0_to_1(low: float, high: float) -> None:
    images = torch.linspace(low, high, 40 * 4).reshape(40, 1, 2, 2)
    with pytest.raises(DataError, match=r"images leave \[0, 1\] .*(divide by 255|normalisation)"):
        Data.from_arrays(images, torch.arange(40) % 2)


def test_from_arrays_refuses_more_labels_than_class_names() -> None:
    with pytest.raises(DataError, match="out of range; 2 classes"):
        Data.from_arrays(torch.zeros(40, 2, 2), torch.arange(40) % 4, classes=["a", "b"])


def test_from_arrays_takes_a_mirrored_view() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 4, 5), dtype=np.uint8)
    mirrored = Data.from_arrays(images[..., ::-1], np.arange(40) % 2)
    plain = Data.from_arrays(images, np.arange(40) % 2)
    assert torch.equal(mirrored.train.images, plain.train.images.flip(-1))


def test_from_arrays_takes_an_array_that_may_not_be_written() -> None:
    images = np.zeros((40, 1, 4, 5), np.uint8)
    images.flags.writeable = False
    assert (
        len(Data.from_arrays(images, np.arange(40) % 2).train) == 24
    )  # no warning from torch: warnings are errors here


# --- batches ------------------------------------------------------------------------------------------------


@QUICK
@given(
    n=st.integers(1, 40),
    size=st.integers(1, 50),
    seed=st.none() | st.integers(0, 2**40),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_an_epoch_holds_every_image_once(
    n: int, size: int, seed: int | None, epoch: int, shuffle: bool, dtype: torch.dtype
) -> None:
    images = split(n)
    batches = list(images.batches(size, seed=seed, epoch=epoch, shuffle=shuffle, dtype=dtype))
    x, y, index = joined(batches)
    assert [len(batch.y) for batch in batches] == [size] * (n // size) + ([n % size] if n % size else [])
    assert torch.equal(index.sort().values, torch.arange(n))
    assert torch.equal(y, images.labels[index])
    assert x.dtype == dtype
    assert torch.equal(x, images.images[index].to(dtype) / 255)
    if seed is None or not shuffle:
        assert torch.equal(index, torch.arange(n))


@QUICK
@given(
    n=st.integers(2, 40),
    size=st.integers(1, 20),
    start=st.integers(0, 12),
    seed=st.none() | st.integers(0, 99),
    augmented=st.booleans(),
)
def test_starting_at_a_step_goes_on_exactly(
    n: int, size: int, start: int, seed: int | None, augmented: bool
) -> None:
    def shaken(x: torch.Tensor, y: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        return x * draws.uniform()[:, None, None, None], y

    images = split(n)
    augment = (shaken,) if augmented else ()
    whole = list(images.batches(size, seed=seed, epoch=3, augment=augment))
    rest = list(images.batches(size, seed=seed, epoch=3, augment=augment, start_step=start))
    assert same(rest, whole[start:])


def test_the_order_follows_from_seed_and_epoch_alone() -> None:
    images = split(30)

    def order(**given: int) -> list[int]:
        return joined(list(images.batches(7, **given))).places.tolist()  # type: ignore[arg-type]

    reference = order(seed=4, epoch=2)
    torch.manual_seed(99)
    assert order(seed=4, epoch=2) == reference
    assert order(seed=4, epoch=3) != reference
    assert order(seed=5, epoch=2) != reference
    assert (
        joined(list(images.batches(4, seed=4, epoch=2))).places.tolist() == reference
    )  # whatever the batch size
    assert reference != list(range(30))


def test_batches_are_drawn_without_touching_the_global_random_state() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(split().batches(5, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_batch_of_everything_is_in_file_order() -> None:
    (batch,) = split(9).batches(9, seed=3)
    assert batch.places.tolist() == list(range(9))


def test_augmentations_see_the_images_own_draws_whatever_the_batch_size() -> None:
    images = split(30)

    def noise(x: torch.Tensor, y: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        return draws.uniform()[:, None, None, None].expand_as(x), y

    def drawn(size: int, epoch: int = 0) -> torch.Tensor:
        x, _, index = joined(list(images.batches(size, seed=1, epoch=epoch, augment=(noise,))))
        return x[index.argsort()]

    assert torch.equal(drawn(4), drawn(11))
    assert torch.equal(drawn(4), drawn(30))
    assert not torch.equal(drawn(4), drawn(4, epoch=1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("seed", [None, 3])
def test_a_split_too_large_to_stay_converted_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, seed: int | None
) -> None:
    resident = list(split(20, dtype=dtype).batches(6, seed=seed))
    assert split(20, dtype=dtype)._resident is not None or dtype == torch.float64
    monkeypatch.setattr(module, "RESIDENT_BYTES", 0)
    large = split(20, dtype=dtype)
    assert large._resident is None
    assert same(list(large.batches(6, seed=seed)), resident)


def test_bytes_become_floats_from_0_to_1_by_their_scale() -> None:
    images = Split(
        torch.tensor([0, 4, 16], dtype=torch.uint8).reshape(3, 1, 1, 1), torch.tensor([0, 1, 0]), 16.0
    )
    (batch,) = images.batches(3)
    assert batch.x.flatten().tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [2, 4])
def test_making_batches_leaves_the_images_as_they_were(dtype: torch.dtype, size: int) -> None:
    images = Split(
        torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=dtype).reshape(4, 1, 1, 1), torch.tensor([0, 1, 0, 1]), 4.0
    )
    first = joined(list(images.batches(size, dtype=dtype))).x.flatten().tolist()
    second = joined(list(images.batches(size, dtype=dtype))).x.flatten().tolist()
    assert images.images.flatten().tolist() == [0, 1, 2, 3]
    assert first == second == [0, 0.25, 0.5, 0.75]


# --- fingerprints and places --------------------------------------------------------------------------------


def of(train: Split, *, classes: tuple[str, ...] = ("a", "b", "c")) -> str:
    return Data(train, split(6, seed=1), None, classes).fingerprint


def test_a_fingerprint_changes_with_one_pixel_one_label_or_one_name() -> None:
    reference = of(split())
    assert len(reference) == 16
    assert int(reference, 16) >= 0
    assert of(split()) == reference
    pixel, label = split(), split()
    pixel.images[11, 0, 1, 2] ^= 1
    label.labels[11] = 0
    scaled = Split(split().images, split().labels, 16.0)
    changed = [
        of(pixel),
        of(label),
        of(scaled),
        of(split(), classes=("a", "b", "d")),
        of(split().select(range(11))),
    ]
    assert len({reference, *changed}) == 1 + len(changed)


def test_a_fingerprint_changes_when_a_split_changes_its_part() -> None:
    names = ("a", "b", "c")
    assert (
        Data(split(), split(6), None, names).fingerprint != Data(split(), None, split(6), names).fingerprint
    )


def test_data_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("STRESSLENS_DATA", str(tmp_path))
    assert str(data_root()) == str(tmp_path)
    monkeypatch.setenv("STRESSLENS_DATA", "")
    assert data_root() == cache_root()


def test_columns_follow_the_images() -> None:
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4)
    split = Split(images, labels, columns={"camera": np.array(["a", "b", "c", "d"])})
    assert split.select([2, 0]).columns["camera"].tolist() == ["c", "a"]
    assert split.select(torch.tensor([3])).to("cpu").columns["camera"].tolist() == ["d"]
    with pytest.raises(DataError, match="column 'camera' has shape"):
        Split(images, labels, columns={"camera": np.array(["a"])})
