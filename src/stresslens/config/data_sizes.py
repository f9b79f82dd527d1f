"""How much is data worth: every run of a study at several sizes of its training data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from stresslens.config.schema import STRICT, Positive, Train
from stresslens.core.errors import Problem

SCALED = ("epochs", "evaluate_every", "log_every")
"""Settings of training that count epochs."""


@dataclass(config=STRICT, frozen=True)
class DataSizePoint:
    """One size of a curve; `same_updates` gives it as many more epochs as make its updates those of
    the largest."""

    size: int
    same_updates: bool = False


@dataclass(config=STRICT)
class DataSizes:
    """Sizes of the training data. `updates`: with `epochs` each size is trained for the same
    epochs, so that more data means more updates as well; with `same` for the updates of the
    largest; with `both` there are two curves, which share the largest size."""

    sizes: Annotated[list[Positive], Field(min_length=2)]
    balanced: bool = True
    updates: Literal["epochs", "same", "both"] = "epochs"
    runs: Annotated[list[str], Field(min_length=1)] | None = None
    """Those that have a curve; the others are trained on all there is."""

    def points_of(self, run: str) -> list[DataSizePoint | None]:
        """The points of a run by its name under `runs`; None stands for all there is."""
        return [*self.points] if self.runs is None or run in self.runs else [None]

    @property
    def points(self) -> list[DataSizePoint]:
        own = [DataSizePoint(size, self.updates == "same") for size in self.sizes]
        return own + [
            DataSizePoint(size, True)
            for size in self.sizes
            if self.updates == "both" and size < max(self.sizes)
        ]

    def label(self, point: DataSizePoint) -> str:
        """What the name of a run says of it."""
        return f"size={point.size}" + (
            ",updates=same" if self.updates == "both" and point.same_updates else ""
        )

    def curves_of(self, name: str, point: DataSizePoint) -> list[str]:
        """The curves of a run that this point is on."""
        if self.updates == "both" and point.size == max(self.sizes):
            return [name, f"{name}, same updates"]
        return [f"{name}, same updates" if point.same_updates else name]

    @property
    def sets(self) -> tuple[str, ...]:
        """The keys that no run, grid or sweep may set beside it."""
        counted = ("batch_size", *SCALED) if self.updates != "epochs" else ()
        return ("train.subset", *(f"train.{key}" for key in counted))

    def clashes(self, config: Mapping[str, Any]) -> list[Problem]:
        """What in a recipe's plain values does not go with the curve."""
        train = config.get("train") or {}
        found = []
        if train.get("subset") is not None:
            found.append(
                Problem(
                    ("train", "subset"),
                    "data_sizes sets the size of the training data; take one of the two out",
                )
            )
        if self.updates != "epochs" and config.get("estimator") is not None:
            found.append(
                Problem(("data_sizes", "updates"), "an estimator makes no updates; leave `updates` at epochs")
            )
        if self.updates != "epochs" and _counts_epochs(train.get("schedule", Train.schedule)):
            why = (
                "the schedule step counts epochs, which smaller sizes have more of; take cosine or one_cycle"
            )
            found.append(Problem(("train", "schedule"), why))
        return found

    def at(self, point: DataSizePoint, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a run at this point sets; `recipe` holds its plain values otherwise, those left out
        at their defaults."""
        train = config.get("train") or {}
        changes: dict[str, Any] = {"train.subset": {"images": point.size, "balanced": self.balanced}}
        batch = train.get("batch_size", Train.batch_size)
        if not point.same_updates or not isinstance(batch, int):
            return changes
        more = math.ceil(max(self.sizes) / batch) / math.ceil(point.size / batch)
        scaled = {key: train.get(key, getattr(Train, key)) for key in SCALED}
        return changes | {
            f"train.{key}": max(1, round(value * more))
            for key, value in scaled.items()
            if isinstance(value, int)
        }


def _counts_epochs(schedule: Any) -> bool:
    """Whether it is, or goes on with, the schedule `step`."""
    options = next(iter(schedule.values())) if isinstance(schedule, Mapping) and schedule else None
    name = next(iter(schedule), None) if isinstance(schedule, Mapping) else schedule
    return name == "step" or (isinstance(options, Mapping) and _counts_epochs(options.get("then")))
