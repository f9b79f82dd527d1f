"""Types of plug-in signatures: option ranges, protocols (Attack, Loss, …), Estimate, Finding.

An option annotated with a plug-in protocol is itself a plug-in of that kind.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Annotated, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, WithJsonSchema
from torch import Tensor, nn

from stresslens.core.ball import parse_radius
from stresslens.core.cards import card, sentences
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.plain_rows import data_frame
from stresslens.core.text import brief

LARGEST = 2**53
"""The largest integer that an option may have; a float holds every one up to it."""
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Chance = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Options with a range; a value outside is refused before the computation begins."""


def _radius(value: Any) -> Any:
    if not isinstance(value, str) or "/" not in value:
        return value
    try:
        return parse_radius(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


Radius = Annotated[
    float,
    BeforeValidator(_radius),
    Field(ge=0),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[^/]+/[^/]+$"}]}
    ),
]
"""A radius in pixel units of images in [0, 1], as a number or a fraction such as "8/255"."""

ModelFile = Annotated[str, Field(min_length=1, title="file of a model")]
"""The path of a file, or of a folder, from which a model is made. A run keeps a copy, by which it is
opened."""

Shape = tuple[int, int, int]
"""Channels, height and width of an image."""


@dataclass
class Step:
    """The position of the training, for an objective.

    `progress` runs from 0 to 1. `state` and `carried` are saved with the checkpoint. With several
    processes, `state` is that of the first, and each process has the rows of `carried` for its part
    of the batch.
    """

    draws: Draws
    epoch: int
    progress: float
    state: dict[str, Tensor]
    batch: int = 0
    """The number of this batch in the epoch, from 0, of `batches`. A batch that is used several
    times counts each time."""
    batches: int = 1
    carried: dict[str, Tensor] = field(default_factory=dict)
    """Tensors (n, …) with one row for every position in the batch."""

    def report(self, **figures: float) -> None:
        """Records values of this epoch for metrics.jsonl; they stay in `state` until replaced."""
        self.state.update(
            {_REPORTED + name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}
        )


_REPORTED = "reported: "


def reported(state: Mapping[str, Tensor]) -> dict[str, float]:
    """The values that an objective last reported, by name."""
    return {
        name.removeprefix(_REPORTED): float(value)
        for name, value in state.items()
        if name.startswith(_REPORTED)
    }


def lasting(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An objective's state without its reported values."""
    return {name: value for name, value in state.items() if not name.startswith(_REPORTED)}


Parameters = list[nn.Parameter] | list[dict[str, Any]]
"""The input of an optimizer: parameters, or groups ("params") with their own learning rate
("lr")."""


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
    """An attack with its options: images x (N, C, H, W) in [0, 1] and labels → x_adv.

    x_adv is inside the ball and the box. `watch` gets every iterate and returns which images to
    continue with. `target` (N,) are the target classes, `start` are the images where the search
    begins, and `surrogate` is a model whose gradients are used instead of the model's.
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
    """A classifier that is not trained by gradient descent.

    `arrays` hold everything that it has learned: another estimator with the same options and the
    same arrays gives the same scores.
    """

    arrays: Arrays

    def fit(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Fits images (N,C,H,W) in [0,1] and labels (N,); every class 0 … K-1 occurs."""

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        """(N,K) finite scores; a larger score means a more likely class.

        They are used as logits: the probabilities are the softmax of the scores divided by a
        temperature, which is fitted on the validation split.
        """


class Scheduler(Protocol):
    """The result of a schedule: torch's LRScheduler, or any object with these three methods.

    A further method `after_evaluation(validation)` is told the figures on validation (`loss`,
    `accuracy`) after each evaluation. A function `needs_validation` in the plug-in's file then returns
    True.
    """

    def step(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Schedule(Protocol):
    def __call__(
        self, *, optimizer: torch.optim.Optimizer, steps: int, steps_per_epoch: int
    ) -> Scheduler: ...


def _of_values(operation: Callable[[float, float], float]) -> tuple[Any, Any]:
    """An operation on the values of estimates and on numbers, and the same from the right side."""

    def forward(one: Estimate, other: Any) -> float:
        return operation(one.value, float(other)) if isinstance(other, Estimate | Real) else NotImplemented

    def backward(one: Estimate, other: Any) -> float:
        return operation(float(other), one.value) if isinstance(other, Estimate | Real) else NotImplemented

    return forward, backward


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval.

    `unit` is what the interval accounts for: the images of the split, the seeds, both, or also the data
    sets (`n` then counts these). Without
    an interval both bounds are NaN; an infinite bound says that this end cannot be known. Where it is
    computed with, its value alone counts, and the result is a plain number without an interval.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95
    unit: Literal["images", "seeds", "both", "data sets"] = "images"

    def __str__(self) -> str:
        low, high = math.isfinite(self.low), math.isfinite(self.high)
        interval = "no interval" if not high else f"at most {self.high:.4g}"
        if low:
            interval = f"{self.low:.4g} to {self.high:.4g}" if high else f"at least {self.low:.4g}"
        return f"{self.value:.4g} ({interval}, n = {self.n})"

    def __repr__(self) -> str:
        return f"Estimate({self})"

    def __format__(self, spec: str) -> str:
        """The value alone in a format of numbers (`.3f`), and all without one."""
        return format(self.value, spec) if spec else str(self)

    def __float__(self) -> float:
        return float(self.value)

    __add__, __radd__ = _of_values(operator.add)
    __sub__, __rsub__ = _of_values(operator.sub)
    __mul__, __rmul__ = _of_values(operator.mul)
    __truediv__, __rtruediv__ = _of_values(operator.truediv)

    def __round__(self, digits: int | None = None) -> float:
        return round(self.value, digits)

    def __neg__(self) -> float:
        return -self.value

    def __abs__(self) -> float:
        return abs(self.value)

    def __lt__(self, other: Estimate | float) -> bool:
        """Estimates are ordered by their values; an order is no claim that the difference is real."""
        return self.value < other.value if isinstance(other, Estimate) else self.value < other

    def __gt__(self, other: Estimate | float) -> bool:
        return self.value > other.value if isinstance(other, Estimate) else self.value > other

    def __le__(self, other: Estimate | float) -> bool:
        return self.value <= other.value if isinstance(other, Estimate) else self.value <= other

    def __ge__(self, other: Estimate | float) -> bool:
        return self.value >= other.value if isinstance(other, Estimate) else self.value >= other

    def _repr_html_(self) -> str:
        over = "images and seeds" if self.unit == "both" else self.unit
        return card(str(self), f"{100 * self.level:g} % interval over {over}: {self.method}.")

    def to_frame(self) -> Any:
        """One row: a `pandas.DataFrame` where pandas is installed, otherwise a list of one
        dictionary."""
        return data_frame([self.as_json()])

    def as_json(self) -> dict[str, Any]:
        """Plain values, with null where a bound is not finite (JSON has no NaN)."""
        pairs = dataclasses.asdict(self).items()
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in pairs}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Estimate:
        return Estimate(**with_bounds(values))


def with_bounds(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an `Estimate`, with numbers in place of null: infinity for a bound beside a
    known one, otherwise NaN."""
    given = {bound: values.get(bound) is not None for bound in ("low", "high")}
    lost = {"value": math.nan, "low": math.nan, "high": math.nan}
    if given["low"] != given["high"]:
        lost |= {"low": -math.inf, "high": math.inf}
    return {k: lost[k] if v is None and k in lost else v for k, v in values.items()}


@dataclass(frozen=True)
class Finding:
    """The result of a check: whether there is a sign of a problem, its severity, and the evidence.

    `n` is the number of images (or rows) that were checked. `remedy` says what to do, and `items`
    are examples. `places` are positions of images to look at, over all splits in their order.
    """

    audit: str
    status: Literal["sign", "no sign", "not checked"]
    severity: Literal["none", "minor", "serious"]
    evidence: str
    n: int
    remedy: str = ""
    items: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    @property
    def _lead(self) -> str:
        serious = f" ({self.severity})" if self.status == "sign" else ""
        return f"{brief(self.audit)}: {self.status}{serious}, n = {self.n}"

    @property
    def rank(self) -> tuple[int, bool]:
        """The place among others: serious signs first, checks that could not be made last."""
        return ("serious", "minor", "none").index(self.severity), self.status == "not checked"

    @property
    def sentence(self) -> str:
        """The name, the severity (the status where it is no sign) and the evidence as one line."""
        return f"{self.audit} ({self.severity if self.status == 'sign' else self.status}): {self.evidence}"

    def __repr__(self) -> str:
        return f"Finding({self._lead}: {brief(self.evidence, 200)})"

    def _repr_html_(self) -> str:
        remedy = f"What to do: {brief(self.remedy, 600)}" if self.remedy else ""
        return card(self._lead, brief(self.evidence, 600), remedy, sentences(self.items))

    def to_frame(self) -> Any:
        """One row: a `pandas.DataFrame` where pandas is installed, otherwise a list of one
        dictionary."""
        return data_frame([self.as_json()])

    def as_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return values if self.places else {key: value for key, value in values.items() if key != "places"}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Finding:
        lists = {key: tuple(values.get(key, ())) for key in ("items", "places")}
        return Finding(**{**values, **lists})
