"""Another division of the same images for every repeat."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.splits import Division, split_named


def whole_data() -> Data:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 1, 2, 2).contiguous()
    return Data.from_arrays(images, torch.arange(100) % 4, validation=20, test=20)


def numbers(split: Split | None) -> set[int]:
    assert split is not None
    return set(split.images[:][:, 0, 0, 0].tolist())


def test_each_seed_of_a_division_by_folds_tests_on_another_fold() -> None:
    data, division = whole_data(), Division(folds=5, times=2)
    divided = [division.of(data, seed) for seed in range(10)]
    for repetition in (divided[:5], divided[5:]):
        assert sorted(k for each in repetition for k in numbers(each.test)) == list(range(100))
    assert numbers(divided[0].test) != numbers(divided[5].test)
    for seed, each in enumerate(divided):
        parts = [numbers(split) for split in each.splits.values()]
        assert [len(part) for part in parts] == [60, 20, 20]
        assert set.union(*parts) == set(range(100))
        assert each.division == {
            "kind": "folds",
            "folds": 5,
            "fold": seed % 5,
            "repetition": seed // 5,
            "train": 60,
            "test": 20,
        }
        assert each.fingerprint == division.of(data, seed).fingerprint


def test_repeated_splits_keep_the_sizes() -> None:
    data, division = whole_data(), Division()
    divided = [division.of(data, seed) for seed in range(3)]
    for each in divided:
        assert {name: len(split) for name, split in each.splits.items()} == {
            "train": 60,
            "validation": 20,
            "test": 20,
        }
    assert len({frozenset(numbers(each.test)) for each in divided}) == 3
    with pytest.raises(ConfigError, match="no test images"):
        division.of(replace(data, test=None), 0)


def test_a_split_is_found_by_its_name() -> None:
    images = torch.zeros(12, 1, 2, 2)
    data = replace(Data.from_arrays(images, [0, 1] * 6, validation=0, test=4), name="mine")
    assert split_named(data, "test") is data.test
    with pytest.raises(ConfigError, match=r"^explain.split: mine has no validation split here; it has train"):
        split_named(data, "validation", "explain.split")
    with pytest.raises(ConfigError, match=r"^mine has no valid split here; it has train, test$"):
        split_named(data, "valid")
