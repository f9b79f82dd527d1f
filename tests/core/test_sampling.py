"""Positions drawn from labels and groups: disjoint, complete, in proportion, whole groups, and the
same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.fingerprint import image_keys
from stresslens.core.sampling import balanced_subset, divide, fold_positions, images_in_turn

QUICK = settings(max_examples=25, deadline=None)

# --- dividing -----------------------------------------------------------------------------------------------


@st.composite
def divisible(draw: st.DrawFn) -> tuple[torch.Tensor, int, int, int]:
    """Labels with at least four images a class, and counts of test and validation that leave every
    class everywhere."""
    sizes = draw(st.lists(st.integers(4, 30), min_size=2, max_size=6))
    labels = torch.tensor([k for k, size in enumerate(sizes) for _ in range(size)])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    k, n = len(sizes), len(labels)
    test = draw(st.integers(k, n // 4)) if n // 4 >= k else k
    validation = draw(st.integers(k, n // 4)) if n // 4 >= k else k
    return labels[order], test, validation, draw(st.integers(0, 2**31))


@QUICK
@given(divisible())
def test_parts_are_disjoint_complete_stratified_and_seeded(case: tuple[torch.Tensor, int, int, int]) -> None:
    labels, test, validation, seed = case
    try:
        parts = divide(labels, {"test": test, "validation": validation}, seed=seed)
    except DataError:  # the first part may leave a small class too small for the second
        return
    assert list(parts) == ["test", "validation", "train"]
    assert (len(parts["test"]), len(parts["validation"])) == (test, validation)
    assert torch.equal(torch.cat(list(parts.values())).sort().values, torch.arange(len(labels)))
    rest = torch.arange(len(labels))
    for name in ("test", "validation"):
        classes = int(labels.max()) + 1
        expected = labels[rest].bincount(minlength=classes) * len(parts[name]) / len(rest)
        drawn = labels[parts[name]].bincount(minlength=classes)
        assert (drawn - expected).abs().max() <= 1
        rest = rest[~torch.isin(rest, parts[name])]
    again = divide(labels, {"test": test, "validation": validation}, seed=seed)
    assert all(torch.equal(parts[name], again[name]) for name in parts)


def test_another_seed_is_another_division() -> None:
    labels = torch.arange(100) % 2
    first, second = (divide(labels, {"test": 20}, seed=seed)["test"] for seed in (0, 1))
    assert not torch.equal(first.sort().values, second.sort().values)


@pytest.mark.parametrize(
    ("part", "count"), [(0, 0), (0.0, 0), (0.25, 25), (0.201, 21), (20, 20), (20.0, 20), (0.98, 98)]
)
def test_a_part_is_a_count_or_a_share_rounded_up(part: float, count: int) -> None:
    parts = divide(torch.arange(100) % 2, {"test": part}, seed=0)
    assert (len(parts["test"]), len(parts["train"])) == (count, 100 - count)


@pytest.mark.parametrize("part", [-1, -0.1, 1.5, 20.5])
def test_a_part_that_is_neither_is_refused_by_name(part: float) -> None:
    with pytest.raises(ConfigError, match=f"validation: {part} is neither a count"):
        divide(torch.arange(100) % 2, {"validation": part}, seed=0)


def test_a_class_with_one_image_cannot_be_divided_and_is_named() -> None:
    labels = torch.tensor([0] * 9 + [1])
    with pytest.raises(DataError, match=r"smallest \('cat'\) has 1 image of 10"):
        divide(labels, {"test": 3}, seed=0, names=["dog", "cat"])
    with pytest.raises(DataError, match=r"smallest \(1\) has 1 image of 10"):
        divide(labels, {"test": 3}, seed=0)


@pytest.mark.parametrize("count", [1, 9])
def test_every_class_must_fit_on_both_sides(count: int) -> None:
    with pytest.raises(DataError, match=f"cannot draw {count} test images with every class on both sides"):
        divide(torch.arange(10) % 2, {"test": count}, seed=0)


@pytest.mark.parametrize("parts", [{"test": 10}, {"test": 6, "validation": 0.4}, {"test": 100}])
def test_nothing_left_to_train_on_says_what_was_asked(parts: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="nothing is left to train on: 10 images, test"):
        divide(torch.arange(10) % 2, parts, seed=0)


# --- balanced subsets ---------------------------------------------------------------------------------------


@QUICK
@given(
    sizes=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    seed=st.integers(0, 99),
)
def test_subsets_are_balanced_and_nested(sizes: list[int], shares: tuple[float, float], seed: int) -> None:
    labels = torch.tensor([k for k, size in enumerate(sizes) for _ in range(size)])
    small, large = sorted(max(1, int(share * len(labels))) for share in shares)
    rows = balanced_subset(labels, large, seed=seed)
    assert len(rows.unique()) == large
    assert set(balanced_subset(labels, small, seed=seed).tolist()) <= set(rows.tolist())
    taken = labels[rows].bincount(minlength=len(sizes)).tolist()
    most = max(taken)
    assert all(t >= most - 1 or t == size for t, size in zip(taken, sizes))  # as many of each as it has


@pytest.mark.parametrize("size", [0, -1, 7])
def test_a_subset_that_is_not_to_be_had_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"a subset of {size} images was asked for; there are 6"):
        balanced_subset(torch.arange(6) % 2, size, seed=0)


# --- groups and folds ---------------------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 2), min_size=30, max_size=90),
    groups=st.lists(st.integers(0, 14), min_size=90, max_size=90),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_groups_stay_on_one_side(labels: list[int], groups: list[int], seed: int) -> None:
    y, of_image = torch.tensor(labels), np.array(groups[: len(labels)])
    try:
        parts = divide(y, {"test": 0.25, "validation": 0.2}, seed=seed, groups=of_image)
    except DataError:
        return
    sides = [set(of_image[rows.numpy()].tolist()) for rows in parts.values()]
    assert not any(a & b for k, a in enumerate(sides) for b in sides[k + 1 :])
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("groups", [None, np.arange(200) // 4])
def test_folds_are_all_images_once_with_every_class_in_proportion(groups: np.ndarray | None) -> None:
    y = (torch.arange(200) * 7) % 4
    folds = fold_positions(y, 5, seed=3, groups=groups)
    assert sorted(torch.cat(folds).tolist()) == list(range(200))
    for fold in folds:
        assert y[fold].bincount(minlength=4).min() >= 6
    assert all(torch.equal(a, b) for a, b in zip(folds, fold_positions(y, 5, seed=3, groups=groups)))
    assert not all(torch.equal(a, b) for a, b in zip(folds, fold_positions(y, 5, seed=4, groups=groups)))


def test_a_class_with_fewer_images_than_folds() -> None:
    y = torch.tensor([0] * 20 + [1] * 3)
    with pytest.raises(DataError, match=r"5 parts with every class in each: class 'rare' has 3 images"):
        fold_positions(y, 5, seed=0, names=("common", "rare"))
    with pytest.raises(DataError, match="class 1 has 1 group"):
        fold_positions(
            torch.tensor([0] * 20 + [1] * 10), 2, seed=0, groups=np.array([*range(20), *[99] * 10])
        )


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.6, 0.9])
def test_parts_of_whole_groups_come_near_the_size_asked_for(share: float) -> None:
    y, groups = torch.arange(1000) % 2, np.arange(1000) // 20
    part = divide(y, {"test": share}, seed=0, groups=groups)["test"]
    assert len(part) == pytest.approx(1000 * share, abs=60)


def test_few_groups_are_divided_as_well_as_they_can_be() -> None:
    y, groups = torch.arange(60) % 2, np.arange(60) // 10
    part = divide(y, {"test": 0.05}, seed=0, groups=groups)["test"]
    assert len(part) == 10


# --- images in turn -----------------------------------------------------------------------------------------


def test_the_same_images_come_first_however_they_are_sorted() -> None:
    numbers = torch.Generator().manual_seed(0)
    x, y = torch.rand(90, 1, 3, 3, generator=numbers), torch.arange(90) // 30
    first = images_in_turn(x, y, seed=0)
    assert sorted(first.tolist()) == list(range(90))
    for k in (3, 30, 60):
        assert y[first[:k]].bincount().tolist() == [k // 3] * 3
    order = torch.randperm(90, generator=numbers)
    again = order[images_in_turn(x[order], y[order], seed=0)]
    assert torch.equal(again, first)
    assert not torch.equal(images_in_turn(x, y, seed=1), first)


def test_a_key_is_that_of_the_pixels() -> None:
    x = torch.rand(50, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    keys = image_keys(torch.cat([x, x[:5]]))
    assert len(keys.unique()) == 50
    assert torch.equal(keys[50:], keys[:5])
    changed = x[:1].clone()
    changed[0, 1, 2, 2] += 1e-6
    assert image_keys(changed) != keys[:1]


@QUICK
@given(st.lists(st.integers(2, 40), min_size=2, max_size=7), st.integers(0, 2**32 - 1), st.data())
def test_the_drawn_positions_are_those_of_scikit_learn(
    sizes: list[int], seed: int, data: st.DataObject
) -> None:
    model_selection = pytest.importorskip("sklearn.model_selection")
    labels = np.repeat(np.arange(len(sizes)), sizes)[np.random.default_rng(seed).permutation(sum(sizes))]
    count = data.draw(st.integers(len(sizes), sum(sizes) - len(sizes)))
    rest, part = model_selection.train_test_split(
        np.arange(len(labels)), test_size=count, random_state=seed, stratify=labels
    )
    drawn = divide(torch.from_numpy(labels), {"test": count}, seed=seed)
    assert (drawn["train"].tolist(), drawn["test"].tolist()) == (rest.tolist(), part.tolist())
