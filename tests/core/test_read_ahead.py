"""Batches that a thread prepares ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from stresslens.core.data import Batch, Data
from stresslens.core.errors import DataError
from stresslens.core.read_ahead import read_ahead, worth_reading_ahead
from stresslens.plugins.augmentations.crop import crop


def test_the_batches_are_the_same(small: Data) -> None:
    options = {"seed": 3, "epoch": 2, "augment": [crop]}
    for mine, ahead in zip(
        small.train.batches(25, **options), read_ahead(small.train.batches(25, **options)), strict=True
    ):
        assert all(one.equal(other) for one, other in zip(mine, ahead, strict=True))


def slow(count: int, begun: list[int]) -> Iterator[Batch]:
    for k in range(count):
        begun.append(k)
        yield Batch(torch.full((1,), float(k)), torch.tensor([k]), torch.tensor([k]))


def test_one_batch_is_prepared_ahead_and_no_more() -> None:
    begun: list[int] = []
    batches = read_ahead(slow(4, begun))
    assert next(batches).y.item() == 0
    until = time.monotonic() + 5
    while len(begun) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert begun == [0, 1]
    assert [batch.y.item() for batch in batches] == [1, 2, 3]


def test_an_error_is_raised_where_its_batch_is_due() -> None:
    def failing() -> Iterator[Batch]:
        yield from slow(1, [])
        raise DataError("the disk is gone")

    batches = read_ahead(failing())
    next(batches)
    with pytest.raises(DataError, match="the disk is gone"):
        next(batches)


def test_the_thread_ends_with_the_batches() -> None:
    before = threading.active_count()
    batches = read_ahead(slow(9, []))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_images_in_memory_are_not_read_ahead(small: Data) -> None:
    assert not worth_reading_ahead(small.train.images)
