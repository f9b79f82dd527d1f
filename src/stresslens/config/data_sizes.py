"""The key `data_sizes:` of a study file: a learning curve, each variant at several training-set
sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stresslens.config.schema import STRICT, Positive, Train
from stresslens.core.errors import Problem
from stresslens.core.types import LARGEST

SCALED = ("epochs", "evaluate_every", "log_every")
"""Settings of `train` that are numbers of epochs."""


@dataclass(config=STRICT, frozen=True)
class DataSizePoint:
    """One size of a curve. With `same_updates` it gets more epochs, so that it makes as many
    updates as the largest size."""

    size: int
    same_updates: bool = False


@dataclass(config=STRICT)
class DataSizes:
    """Sizes of the training data, in images.

    `updates: epochs` trains each size for the same number of epochs, so more data also means more
    updates. `same` trains each size for as many updates as the largest. `both` gives two curves,
    which share the largest size.
    """

    sizes: Annotated[list[Positive], Field(min_length=2)]
    """Numbers of training images."""
    balanced: bool = True
    """The same number of each class, as far as there are enough."""
    updates: Literal["epochs", "same", "both"] = "epochs"
    """What is the same for all sizes: epochs, updates, or one curve of each."""
    runs: Annotated[list[str], Field(min_length=1)] | None = None
    """The variants that have a curve; the others are trained on all training images."""

    def points_of(self, run: str) -> list[DataSizePoint | None]:
        """The points of a variant by its name under `runs`; None stands for all training images."""
        return [*self.points] if self.runs is None or run in self.runs else [None]

    @property
    def points(self) -> list[DataSizePoint]:
        points, largest = (
            [DataSizePoint(size, self.updates == "same") for size in self.sizes],
            max(self.sizes),
        )
        return points + [
            DataSizePoint(size, True) for size in self.sizes if self.updates == "both" and size < largest
        ]

    def label(self, point: DataSizePoint) -> str:
        """The part of a variant's name that shows the point."""
        return f"size={point.size}" + (
            ",updates=same" if self.updates == "both" and point.same_updates else ""
        )

    def curves_of(self, name: str, point: DataSizePoint) -> list[str]:
        """The names of the variant's curves that contain this point."""
        if self.updates == "both" and point.size == max(self.sizes):
            return [name, f"{name}, same updates"]
        return [f"{name}, same updates" if point.same_updates else name]

    @property
    def sets(self) -> tuple[str, ...]:
        """The keys that this section sets, so no run, grid or sweep may set them."""
        counted = ("batch_size", *SCALED) if self.updates != "epochs" else ()
        return ("train.subset", *(f"train.{key}" for key in counted))

    def clashes(self, config: Mapping[str, Any]) -> list[Problem]:
        """Settings among a variant's plain values that conflict with the curve."""
        train = _section(config, "train")
        problems = []
        if train.get("subset") is not None:
            problems.append(
                Problem(
                    ("train", "subset"),
                    "data_sizes sets the size of the training data; remove one of the two",
                )
            )
        if self.updates != "epochs" and config.get("estimator") is not None:
            problems.append(
                Problem(("data_sizes", "updates"), "an estimator makes no updates; leave `updates` at epochs")
            )
        if self.updates != "epochs" and _counts_epochs(train.get("schedule", Train.schedule)):
            why = "the schedule step counts epochs, which differ between the sizes; use cosine or one_cycle"
            problems.append(Problem(("train", "schedule"), why))
        return problems

    def at(self, point: DataSizePoint, config: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a variant at this point, by dotted key. `config` holds its other plain
        values; a key that is not in it has its default."""
        train = _section(config, "train")
        changes: dict[str, Any] = {"train.subset": {"images": point.size, "balanced": self.balanced}}
        batch = train.get("batch_size", Train.batch_size)
        if not point.same_updates or not _is_count(batch):
            return changes
        epochs_factor = math.ceil(max(self.sizes) / batch) / math.ceil(point.size / batch)
        scaled = {key: train.get(key, getattr(Train, key)) for key in SCALED}
        return changes | {
            f"train.{key}": max(1, round(value * epochs_factor))
            for key, value in scaled.items()
            if value == 0 or _is_count(value)
        }


def _is_count(value: Any) -> bool:
    """Whether a plain value can be a number of images or epochs; the validation reports others."""
    return isinstance(value, int) and 1 <= value <= LARGEST


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of plain values; empty where it is no mapping, which the validation reports."""
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _counts_epochs(schedule: Any) -> bool:
    """Whether it is the schedule `step`, or a schedule whose option `then` continues with it."""
    options = next(iter(schedule.values())) if isinstance(schedule, Mapping) and schedule else None
    name = next(iter(schedule), None) if isinstance(schedule, Mapping) else schedule
    return name == "step" or (isinstance(options, Mapping) and _counts_epochs(options.get("then")))
