"""How far two sets of pictures differ, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from stresslens.api.arguments import plain_data
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.runs import Run
from stresslens.api.studies import Study
from stresslens.api.subjects import DataNow, run_of
from stresslens.api.words import public_call
from stresslens.config.data_sets import data_set_of_one_size
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.run_paths import runs_in
from stresslens.evaluation.compared_sets import checked_split, compare_with_run, set_without_classes
from stresslens.evaluation.data_comparison import DataComparison
from stresslens.evaluation.drift import LEAST, MOST, compare_sets
from stresslens.evaluation.picture_set import PictureSet

Pictures = str | os.PathLike[str] | Mapping[str, Any] | Data


@public_call()
def compare_data(
    a: Pictures | Run | Study,
    b: Pictures,
    *,
    split_a: str | None = None,
    split_b: str | None = None,
    features: Literal["pictures", "network"] = "pictures",
    n_images: int = MOST,
    data: DataNow = None,
    trust: bool = False,
    module: nn.Module | None = None,
    progress: Progress = True,
) -> DataComparison:
    """How far the images of `b` differ from those of `a`: whether a classifier tells them apart, and which
    properties differ. No network is trained.

    `a` and `b` are data as in `train`, or the path of a folder of images without classes; `a` may also be
    a run, which means its training images. `split_a` and `split_b` are "train", "validation", "test" or
    "all" (the default). With the `features` "network" the classifier sees the inputs of the last linear
    layer of the run, and `split_a` is by default "validation". Of each at most `n_images` random ones are
    compared. `data`, `trust` and `module` are as in `open`, `progress` as in `train`. Raises ConfigError
    and DataError."""
    if features not in ("pictures", "network"):
        raise ConfigError(f"features is {features!r}; expected 'pictures' or 'network'")
    if isinstance(n_images, bool) or not isinstance(n_images, int) or n_images < LEAST:
        raise ConfigError(f"n_images is {n_images!r}; expected a whole number from {LEAST} up")
    if _is_run(b):
        raise ConfigError("b is a run; give the run as a, and the other images as b")
    with shown(progress):
        if _is_run(a):
            run = run_of(a, what="a", trust=trust, module=module, data=data)
            return compare_with_run(
                run.folder,
                lambda size: _picture_set(b, split_b, n_images, size),
                features=features,
                split=split_a,
                most=n_images,
                trust=run.trust,
                module=run.module,
                data=run.data_now,
            )
        if features == "network":
            raise ConfigError("features='network' needs a run as a, whose network is meant")
        if a is b and split_a == split_b:
            raise ConfigError("a and b are the same images; choose parts with split_a and split_b")
        first = _picture_set(a, split_a, n_images)
        size = None if first.shape is None else (first.shape[1], first.shape[2])
        return compare_sets(first, _picture_set(b, split_b, n_images, size))


def _is_run(value: Any) -> bool:
    if isinstance(value, Run | Study):
        return True
    return isinstance(value, str | os.PathLike) and bool(runs_in(Path(value)))


def _picture_set(value: Any, split: str | None, most: int, size: tuple[int, int] | None = None) -> PictureSet:
    """The set of pictures that an argument names. A data set whose images differ in size gets `size`."""
    checked = checked_split(split, "all")
    if isinstance(value, Data):
        return PictureSet.of_data(value.uncached(), checked, most, 0)
    if isinstance(value, str | os.PathLike):
        found = set_without_classes(Path(value).expanduser(), split, most, 0)
        if found is not None:
            return found
    data, _ = data_set_of_one_size(plain_data(value), base=Path.cwd(), size=size)
    return PictureSet.of_data(data, checked, most, 0)
