"""Train, validation and test splits: drawn at random, subsets, cross-validation folds per
repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.data import Data, Split, part_of
from stresslens.core.errors import ConfigError, naming
from stresslens.core.sampling import balanced_subset, divide, fold_positions, shuffled
from stresslens.core.stored_images import Stored


def split_named(data: Data, name: str, key: str = "") -> Split:
    """The split of this name; `key` is the setting that names it. Raises ConfigError if the data have no
    such split."""
    if name not in data.splits:
        where = f"{key}: " if key else ""
        raise ConfigError(f"{where}{data.name} has no {name} split here; it has {', '.join(data.splits)}")
    return data.splits[name]


def drawn(
    whole: Split,
    classes: Sequence[str],
    name: str,
    *,
    test: int | float,
    validation: int | float,
    subset: int | None,
    seed: int,
) -> Data:
    """A data set whose test and validation images are drawn from `whole`.

    Both are counts, or shares of all images. With `subset`, the training images are then reduced to
    a balanced subset. Images with the same value in the column "group" stay together.
    """
    parts = divide(whole.labels, {"test": test}, seed=seed, names=classes, groups=whole.columns.get("group"))
    count = round(validation * len(whole)) if 0 < validation < 1 else validation
    train, held_out = whole.select(parts["train"]), part_of(whole, parts["test"])
    return divided(train, held_out, classes, name, validation=count, subset=subset, seed=seed)


def divided(
    train: Split,
    test: Split | None,
    classes: Sequence[str],
    name: str,
    *,
    validation: int | float,
    subset: int | None,
    seed: int,
) -> Data:
    """A data set whose test images are given and whose validation images are drawn from `train`.

    With `subset`, the training images are then reduced to a balanced subset. Images with the same
    value in the column "group" stay together.
    """
    parts = divide(
        train.labels, {"validation": validation}, seed=seed, names=classes, groups=train.columns.get("group")
    )
    data = Data(train.select(parts["train"]), part_of(train, parts["validation"]), test, tuple(classes), name)
    return data if subset is None else fewer(data, subset, seed=seed)


def fewer(data: Data, size: int, *, balanced: bool = True, seed: int) -> Data:
    """The data set with `size` of its training images.

    They are drawn at random or, if `balanced`, equally many of each class as far as it has images.
    A larger subset with the same seed contains a smaller one. Raises ConfigError if there are too
    few images.
    """
    labels = data.train.labels.cpu()
    if size > len(labels):
        raise ConfigError(f"a subset of {size} training images was asked for; {data.name} has {len(labels)}")
    rows = balanced_subset(labels, size, seed=seed) if balanced else shuffled(len(labels), seed, 0)[:size]
    counts = labels.bincount(minlength=len(data.classes))
    notes = data.notes
    if balanced and size > int(counts.min()) * len(data.classes):
        scarce = data.classes[int(counts.argmin())]
        notes = (
            *notes,
            f"a subset of {size} images cannot be balanced: the smallest class, {scarce}, "
            f"has {int(counts.min())}; the other classes fill it up",
        )
    return replace(data, train=data.train.select(rows), notes=notes)


def set_aside(data: Data, calibration: int | float | None) -> Data:
    """The data set with some of its validation images, a count or a share of them, as calibration split.

    They are drawn at random, stratified by class, the same ones in every call. Images with the same
    value in the column "group" stay together. Raises ConfigError where no validation image is left,
    and DataError where a class has too few.
    """
    if calibration is None:
        return data
    rows = calibration_rows(data, calibration)
    assert data.validation is not None
    parts = {name: data.validation.select(rows[name]) for name in ("train", "calibration")}
    return replace(data, validation=parts["train"], calibration=parts["calibration"])


def calibration_rows(data: Data, calibration: int | float) -> dict[str, Tensor]:
    """The positions in the validation split of the images that are set aside ("calibration") and of the
    others ("train"). Raises as `set_aside` does."""
    whole = data.validation
    n = 0 if whole is None else len(whole)
    if whole is None or n < 2 or calibration >= n:
        raise ConfigError(
            f"train.calibration: {calibration} validation images are to be set aside, and some must be left "
            f"to choose the epoch; {data.name} has {n or 'no'} validation images"
        )
    with naming("train.calibration"):
        return divide(
            whole.labels,
            {"calibration": calibration},
            seed=0,
            names=data.classes,
            groups=whole.columns.get("group"),
        )


@dataclass(frozen=True)
class Division:
    """A new division of the same images for every seed (repeated cross-validation, random splits).

    With `folds`, the test images are one of `folds` parts, divided anew for each of `times`
    repetitions. Without `folds`, they are drawn at random, as many as the data set has.
    """

    folds: int | None = None
    times: int = 1

    def of(self, data: Data, seed: int) -> Data:
        """The data set divided for a seed. The validation images keep their share.

        With folds, the fold is seed % folds, and the repetition is seed // folds. Raises
        ConfigError without folds if the data set has no test images.
        """
        whole = pooled(data)
        test, facts = self.test_positions(data, whole, seed), self._facts(seed)
        everything = torch.arange(len(whole))
        rest = everything[~torch.isin(everything, test)]
        of_rest = whole.select(rest)
        kept = len(data.train) + (len(data.validation) if data.validation else 0)
        share = len(data.validation) / kept if data.validation else 0
        rows = divide(
            of_rest.labels,
            {"validation": share},
            seed=seed,
            names=data.classes,
            groups=of_rest.columns.get("group"),
        )
        train = of_rest.select(rows["train"])
        return replace(
            data,
            train=train,
            validation=part_of(of_rest, rows["validation"]),
            test=whole.select(test),
            division={**facts, "train": len(train), "test": len(test)},
            notes=(
                *data.notes,
                f"all {len(whole)} images, those of every split, "
                "were pooled and divided anew for this repeat",
            ),
        )

    def test_positions(self, data: Data, whole: Split, seed: int) -> Tensor:
        """The positions in `whole`, the pooled images of `data`, of the test images for a seed.

        Raises ConfigError as `of` does."""
        groups = whole.columns.get("group")
        if self.folds is not None:
            repetition, fold = divmod(seed, self.folds)
            folds = fold_positions(
                whole.labels, self.folds, seed=repetition, groups=groups, names=data.classes
            )
            return folds[fold]
        if data.test is None:
            raise ConfigError(
                f"repeats: splits: {data.name} has no test images, so there is no size to draw; "
                "set its `test:` option"
            )
        parts = divide(whole.labels, {"test": len(data.test)}, seed=seed, names=data.classes, groups=groups)
        return parts["test"]

    def _facts(self, seed: int) -> dict[str, Any]:
        if self.folds is None:
            return {"kind": "splits", "repetition": seed}
        repetition, fold = divmod(seed, self.folds)
        return {"kind": "folds", "folds": self.folds, "fold": fold, "repetition": repetition}


def image_names(data: Data) -> list[str]:
    """A name for each image, split after split: its file, or its split and its position there
    (`train[12]`)."""
    return [
        str(split.columns["file"][k]) if "file" in split.columns else f"{name}[{k}]"
        for name, split in data.splits.items()
        for k in range(len(split))
    ]


def split_numbers(data: Data) -> NDArray[np.int64]:
    """(N,) which split each image is in, split after split."""
    return np.repeat(np.arange(len(data.splits)), [len(split) for split in data.splits.values()])


def floats_at(data: Data, places: Sequence[int]) -> Tensor:
    """(n, C, H, W) in [0, 1] the images at these positions, split after split, at least one."""
    starts = np.cumsum([0, *map(len, data.splits.values())])
    splits, images = list(data.splits.values()), []
    for place in places:
        part = int(np.searchsorted(starts, place, side="right")) - 1
        rows = torch.tensor([place - int(starts[part])])
        images.append(splits[part].floats(splits[part].images[rows].cpu()))
    return torch.cat(images)


def pooled(data: Data) -> Split:
    """All images of a data set, split after split, with the columns that every split has."""
    splits = list(data.splits.values())
    images = [split.images for split in splits]
    stored = [part for part in images if isinstance(part, Stored)]
    whole = (
        stored[0].joined(stored[1:])
        if stored
        else torch.cat([part for part in images if isinstance(part, Tensor)])
    )
    shared = [name for name in splits[0].columns if all(name in split.columns for split in splits)]
    columns = {name: np.concatenate([split.columns[name] for split in splits]) for name in shared}
    return Split(whole, torch.cat([split.labels for split in splits]), splits[0].scale, columns)
