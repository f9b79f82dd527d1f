"""Random and stratified sampling of image positions: shuffling, splits, folds, balanced subsets.

The same seed gives the same positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.fingerprint import image_keys


def shuffled(n: int, seed: int, epoch: int) -> Tensor:
    """0 … n - 1 in a random order that depends on seed and epoch alone."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(mix(seed, epoch)))


def sampled_positions(n: int, asked: int | Literal["all"], seed: int) -> Tensor:
    """Positions of `asked` of n images, drawn at random and sorted; all if there are no more."""
    return torch.arange(n) if asked == "all" or asked >= n else shuffled(n, seed, 0)[:asked].sort().values


def divide(
    labels: Tensor,
    parts: Mapping[str, int | float],
    *,
    seed: int,
    names: Sequence[str] = (),
    groups: NDArray[Any] | None = None,
) -> dict[str, Tensor]:
    """Random positions of each part and of the rest ("train"), stratified by class.

    A part is a count (from 1 up) or a share of all images (below 1); 0 leaves it empty. Images with
    the same value in `groups` stay in one part, so sizes and class proportions are only approximate
    then. Raises ConfigError if no image is left to train on, and DataError if a class has too few
    images.
    """
    counts = {name: _count(name, part, len(labels)) for name, part in parts.items()}
    if sum(counts.values()) >= len(labels):
        wanted = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ConfigError(f"nothing is left to train on: {len(labels)} images, {wanted}")
    rest = np.arange(len(labels))
    drawn: dict[str, Tensor] = {}
    for name, count in counts.items():
        of_rest = labels.numpy()[rest]
        present, sizes = np.unique(of_rest, return_counts=True)
        if count and (sizes.min() < 2 or count < len(present) or len(rest) - count < len(present)):
            rarest = int(present[sizes.argmin()])
            label = repr(names[rarest]) if rarest < len(names) else str(rarest)
            raise DataError(
                f"cannot draw {count} {name} images with every class on both sides: {len(present)} classes, "
                f"the smallest ({label}) has {sizes.min()} image{'s' if sizes.min() > 1 else ''} "
                f"of {len(rest)}"
            )
        part = np.arange(0)
        if count and groups is not None:
            chosen = _whole_groups(of_rest, count, seed=seed, groups=groups[rest], names=names)
            rest, part = np.delete(rest, chosen), rest[chosen]
        elif count:
            kept, chosen = _stratified(of_rest, count, seed=seed)
            rest, part = rest[kept], rest[chosen]
        drawn[name] = torch.from_numpy(np.ascontiguousarray(part))
    drawn["train"] = torch.from_numpy(np.ascontiguousarray(rest))
    return drawn


def _stratified(
    labels: NDArray[np.int64], count: int, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions of all images but `count`, and of those, in the order of scikit-learn's
    `train_test_split(test_size=count, random_state=seed, stratify=labels)`.

    It is written out because the import of scikit-learn takes longer than all else that a small
    data set needs. Each class has at least two images, and each side at least one of each class.
    """
    random = np.random.RandomState(seed)
    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = np.split(np.argsort(numbers, kind="stable"), np.cumsum(sizes)[:-1])
    kept = _likeliest_counts(sizes, len(labels) - count, random)
    chosen = _likeliest_counts(sizes - kept, count, random)
    orders = [positions[random.permutation(len(positions))] for positions in by_class]
    rest = np.concatenate([order[:k] for order, k in zip(orders, kept)])
    part = np.concatenate([order[k : k + c] for order, k, c in zip(orders, kept, chosen)])
    return random.permutation(rest), random.permutation(part)


def _likeliest_counts(
    sizes: NDArray[np.int64], count: int, random: np.random.RandomState
) -> NDArray[np.int64]:
    """How many of `count` images drawn from classes of these sizes are likely to be of each class:
    rounded down, and the largest remainders, of equal ones random ones, rounded up."""
    expected = sizes / sizes.sum() * count
    counts = np.floor(expected)
    left, remainders = int(count - counts.sum()), expected - counts
    for remainder in np.unique(remainders)[::-1]:
        if left <= 0:
            break
        (equal,) = np.nonzero(remainders == remainder)
        added = min(len(equal), left)
        counts[random.choice(equal, size=added, replace=False)] += 1
        left -= added
    return np.asarray(counts, dtype=np.int64)


def _whole_groups(
    labels: NDArray[np.int64], count: int, *, seed: int, groups: NDArray[Any], names: Sequence[str]
) -> NDArray[np.int64]:
    """About `count` positions of whole groups.

    Stratified folds, as small as the rarest class allows, are added until one more would lead
    farther away from `count`.
    """
    fewest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    folds = min(max(10, round(len(labels) / min(count, len(labels) - count))), max(2, fewest))
    chosen = np.arange(0)
    for fold in fold_positions(torch.from_numpy(labels), folds, seed=seed, groups=groups, names=names)[:-1]:
        if len(chosen) and abs(len(chosen) + len(fold) - count) >= abs(len(chosen) - count):
            break
        chosen = np.concatenate([chosen, fold.numpy()])
    return chosen


def fold_positions(
    labels: Tensor, folds: int, *, seed: int, groups: NDArray[Any] | None = None, names: Sequence[str] = ()
) -> list[Tensor]:
    """The positions of each of `folds` stratified parts, which together are all images.

    Groups stay whole. Raises DataError if a class has fewer images, or groups, than there are
    folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    y = labels.numpy()
    for label in np.unique(y):
        units = np.arange(len(y))[y == label] if groups is None else np.unique(groups[y == label])
        if len(units) < folds:
            called = repr(names[label]) if label < len(names) else str(label)
            what = "image" if groups is None else "group"
            raise DataError(
                f"cannot divide into {folds} parts with every class in each: "
                f"class {called} has {len(units)} {what}" + ("s" if len(units) != 1 else "")
            )
    divider = (StratifiedKFold if groups is None else StratifiedGroupKFold)(
        folds, shuffle=True, random_state=seed
    )
    return [torch.from_numpy(part) for _, part in divider.split(y, y, groups)]


def _count(name: str, part: int | float, n: int) -> int:
    if part < 0 or (part >= 1 and part != int(part)):
        raise ConfigError(
            f"{name}: {part} is neither a count of images (0, 1, 2, …) nor a share of them (below 1)"
        )
    return int(np.ceil(part * n)) if 0 < part < 1 else int(part)


def rank_within(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the number of earlier members of each member's group."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
    return rank


def balanced_subset(labels: Tensor, size: int, *, seed: int) -> Tensor:
    """`size` positions, equally many of each class as far as it has images.

    A larger subset with the same seed contains a smaller one. Raises ConfigError if there are too
    few images.
    """
    if not 0 < size <= len(labels):
        raise ConfigError(f"a subset of {size} images was asked for; there are {len(labels)}")
    return classes_in_turn(labels, shuffled(len(labels), seed, 0))[:size]


def classes_in_turn(labels: Tensor, order: Tensor) -> Tensor:
    """The positions `order` (n,) of images with these labels, rearranged: one image of each class
    in turn, as long as it has images."""
    rank = torch.from_numpy(rank_within(labels[order].cpu().numpy()))
    return order[torch.argsort(rank, stable=True)]


def images_in_turn(images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
    """(n,) positions of images (n, C, H, W): the classes in turn, each in a random order.

    The draws depend on the pixels of an image and the seed, so that the same images come first
    however they are sorted.
    """
    place = Draws(seed, image_keys(images)).integers(1 << 62)
    return classes_in_turn(labels.cpu(), torch.argsort(place, stable=True)).to(labels.device)


def balanced_order(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """n tickets, equally many for each class that is present.

    A ticket is an image's position, plus n for each time that the image was drawn before.
    """
    n, present = len(labels), torch.unique(labels)
    tickets = []
    for k, label in enumerate(present.tolist()):
        of_class = (labels == label).nonzero().flatten()
        slots = n // len(present) + (k < n % len(present))
        rounds = range(-(-slots // len(of_class)))
        orders = [shuffled(len(of_class), mix(seed, label, r), epoch) for r in rounds]
        tickets.append(torch.cat([of_class[order] + r * n for r, order in enumerate(orders)])[:slots])
    return torch.cat(tickets)[shuffled(n, seed, epoch)]
