"""The words that signatures share. An option annotated with one of the plug-in types is itself a
plug-in of that folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from stresslens.core.ball import parse_radius
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Chance = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Options with a range: what lies outside is refused before anything is computed."""


def _radius(value: Any) -> Any:
    if not isinstance(value, str) or "/" not in value:
        return value
    try:
        return parse_radius(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


Radius = Annotated[float, BeforeValidator(_radius), Field(ge=0)]
"""A radius in pixel units of images in [0, 1], as a number or a fraction such as "8/255"."""

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


@dataclass
class Step:
    """Where training stands, for an objective. `progress` runs from 0 to 1. `state` and `carried`
    are saved with the checkpoint.

    With several processes `state` is the first one's, and each has the rows of `carried` that
    belong to its part of the batch.
    """

    draws: Draws
    epoch: int
    progress: float
    state: dict[str, Tensor]
    batch: int = 0
    """Which batch of the epoch this is, of so many `batches`; one that is shown several times
    counts as often."""
    batches: int = 1
    carried: dict[str, Tensor] = field(default_factory=dict)
    """Tensors (n, …) with a row for every place in the batch."""

    def report(self, **figures: float) -> None:
        """Figures of the running epoch for metrics.jsonl, kept in the state until others take their place."""
        self.state.update(
            {_REPORTED + name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
        )


_REPORTED = "reported: "


def reported(state: Mapping[str, Tensor]) -> dict[str, float]:
    """What an objective last reported of itself, by name."""
    return {
        name.removeprefix(_REPORTED): float(value)
        for name, value in state.items()
        if name.startswith(_REPORTED)
    }


def lasting(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An objective's state without what it reported of itself."""
    return {name: value for name, value in state.items() if not name.startswith(_REPORTED)}


Parameters = list[nn.Parameter] | list[dict[str, Any]]
"""What an optimizer is given: parameters, or groups of them ("params") with rates of their own ("lr")."""


class Loss(Protocol):
    def __call__(self, *, logits: Tensor, y: Tensor) -> Tensor: ...


class Augmentation(Protocol):
    def __call__(self, *, x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]: ...


class Objective(Protocol):
    def __call__(
        self,
        *,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        step: Step,
        net: nn.Module | None = None,
        inputs: Tensor | None = None,
    ) -> Tensor: ...


class Attack(Protocol):
    """An attack with its options: images x (N, C, H, W) in [0, 1] and their labels → x_adv, inside
    the ball and the box.

    `watch` sees every iterate and says which images to go on with; `target` (N,) is the class to
    drive at, `start` where the search begins, `surrogate` a model whose gradients are used instead.
    """

    def __call__(
        self,
        *,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        ball: Any,
        draws: Draws,
        watch: Any,
        target: Tensor | None = None,
        start: Tensor | None = None,
        surrogate: nn.Module | None = None,
    ) -> Tensor: ...


class Optimizer(Protocol):
    def __call__(self, *, parameters: Parameters, lr: float) -> torch.optim.Optimizer: ...


Arrays = dict[str, NDArray[Any]]
"""Plain arrays by name, as an npz file holds them."""


_Plugin = TypeVar("_Plugin")
PluginOption: TypeAlias = _Plugin | Any
"""An option that is itself a plug-in: a default is written as in a study file, `loss:
PluginOption[Loss] = "cross_entropy"`, and the function gets the plug-in. The plain type (`loss:
Loss`) means the same."""


class Estimator(Protocol):
    """A classifier that no gradient loop trains. `arrays` are all it has learned: with the same
    options and the same arrays another one gives the same scores."""

    arrays: Arrays

    def fit(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """images (N,C,H,W) in [0,1] and labels (N,), every class 0 … K-1 among them."""

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        """(N,K), finite: the larger, the likelier. They are used as logits: the softmax of them,
        divided by a temperature that is fitted on validation, are the probabilities."""


class Scheduler(Protocol):
    """What a schedule returns: torch's LRScheduler, or anything with these three."""

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Schedule(Protocol):
    def __call__(
        self, *, optimizer: torch.optim.Optimizer, steps: int, steps_per_epoch: int
    ) -> Scheduler: ...


@dataclass(frozen=True)
class Estimate:
    """A number with its interval. `unit` says over what it varies: the images of the split, the
    seeds, or both."""

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95
    unit: Literal["images", "seeds", "both"] = "images"

    def as_json(self) -> dict[str, Any]:
        """Plain values, with null where a bound is not finite (JSON has no NaN)."""
        pairs = dataclasses.asdict(self).items()
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in pairs}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Estimate:
        known: dict[str, Any] = {k: math.nan if v is None else v for k, v in values.items()}
        return Estimate(**known)


@dataclass(frozen=True)
class Finding:
    """What a check found: whether there is a sign of trouble, how bad, on what evidence over how
    many, and what to do about it."""

    audit: str
    status: Literal["sign", "no sign", "not checked"]
    severity: Literal["none", "minor", "serious"]
    evidence: str
    n: int
    remedy: str = ""
    items: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Finding:
        return Finding(**{**values, "items": tuple(values.get("items", ()))})
