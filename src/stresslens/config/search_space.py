"""The key `sweep:` of a study file, a hyperparameter search: its search space of ranges and
choices, its constraints and its method."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from stresslens.config.dotted_keys import get_dotted
from stresslens.config.registry import Keys
from stresslens.config.schema import STRICT, Positive
from stresslens.config.selection_rules import SweepMetric
from stresslens.config.validation import validated
from stresslens.config.wrong_values import shortened
from stresslens.config.yaml_source import scalar
from stresslens.core.errors import ConfigError, Problem
from stresslens.core.spelling import unknown_key
from stresslens.core.types import Seed

if TYPE_CHECKING:
    from numpy.random import RandomState

TRIALS = 20
Number = int | float


@dataclass(config=STRICT)
class Halving:
    """Successive halving: all trials are trained for `epochs` epochs, the best 1/`factor` of
    them for `factor` times as many, and so on."""

    epochs: Positive = 1
    """Epochs of all trials."""
    factor: Annotated[int, Field(ge=2, le=100)] = 3
    """The best 1/`factor` are trained `factor` times as long."""

    def rungs(self, epochs: int) -> list[int]:
        """The numbers of epochs after which trials are compared, ascending. The last is
        `epochs`."""
        rungs = [self.epochs]
        while rungs[-1] * self.factor < epochs:
            rungs.append(rungs[-1] * self.factor)
        return [*rungs, epochs]


@dataclass(config=STRICT)
class Sweep:
    """A sweep over settings that are drawn from a `space` or listed under `settings`.
    docs/sweeps.md explains every key."""

    space: dict[str, Any] | None = None
    """For each dotted key a list of choices, or a range: `{from: 1e-4, to: 0.1, log: true}`."""
    settings: list[dict[str, Any]] | None = None
    """A list of trials, each with its values by dotted key."""
    method: Literal["random", "tpe", "halving"] = "random"
    """How settings are drawn from the space."""
    trials: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Number of trials."""
    metric: SweepMetric = "auto"
    """What ranks the trials, on validation images."""
    seed: Seed = 0
    """Seed of the drawn settings."""
    where: list[str] = field(default_factory=list)
    """Comparisons that drawn settings satisfy: `train.batch_size <= 128`."""
    halving: Halving = field(default_factory=Halving)
    """Successive halving, with `method: halving`."""

    @property
    def size(self) -> int:
        """The number of trials."""
        return len(self.settings) if self.settings is not None else self.trials or TRIALS


@dataclass(config=STRICT)
class Range:
    """A range of numbers with both ends included. Between two integers all values are integers."""

    start: Annotated[Number, Field(alias="from")]
    """The smallest value."""
    to: Number
    """The largest value."""
    step: Annotated[Number, Field(gt=0)] | None = None
    """Distance of neighbouring values."""
    log: bool = False
    """Draws the logarithm evenly."""

    def wrong(self) -> str | None:
        """What is wrong with the range; None where it is valid."""
        if self.start >= self.to:
            return f"from must lie below to, got {self.start:g} and {self.to:g}"
        if self.log and self.start <= 0:
            return f"log needs numbers above 0, and from is {self.start:g}"
        if self.step is None:
            return None
        if self.log:
            return "give either log or step, not both"
        steps = (self.to - self.start) / self.step
        if abs(steps - round(steps)) > 1e-9 or (
            isinstance(self.start, int) and not isinstance(self.step, int)
        ):
            return f"steps of {self.step:g} from {self.start:g} do not end at {self.to:g}"
        return None


@dataclass(config=STRICT)
class Setting:
    """A hyperparameter of the search space: a dotted key with its possible values, `choices` or the
    numbers of a range. `at` is its path in the study file."""

    key: str
    at: Keys
    choices: list[Any]
    range: Range | None = None

    @property
    def ends(self) -> list[tuple[Any, Keys]]:
        """Every choice, or both ends of the range, each with its path in the study file."""
        if self.range is None:
            return [(choice, (*self.at, index)) for index, choice in enumerate(self.choices)]
        return [(self.range.start, (*self.at, "from")), (self.range.to, (*self.at, "to"))]

    @property
    def whole(self) -> bool:
        return self.range is not None and isinstance(self.range.start, int) and isinstance(self.range.to, int)

    def value(self, drawn: Number) -> Any:
        """The setting's value for a number that was drawn: a choice by its index, or the number
        rounded to four significant digits within the range."""
        if self.range is None:
            return self.choices[int(drawn)]
        if self.whole:
            return int(drawn)
        if self.range.step is not None:
            return round(float(drawn), 10)
        return min(max(float(f"{drawn:.4g}"), self.range.start), self.range.to)

    def number(self, numbers: RandomState) -> Number:
        """A random number of the range, or the index of a choice.

        The numbers are those of Optuna's RandomSampler, which earlier versions drew with: bit by bit,
        so that a sweep that they began goes on with the same trials.
        """
        if self.range is None:
            return int(numbers.uniform(size=len(self.choices)).argmax())
        start, to, step = self.range.start, self.range.to, self.range.step
        margin = 0.5 * (1 if self.whole and step is None else step or 0)
        if self.range.log:
            drawn = math.exp(numbers.uniform(math.log(start - margin), math.log(to + margin)))
            return min(max(round(drawn), start), to) if self.whole else min(max(drawn, start), _below(to))
        drawn = numbers.uniform(start - margin, to + margin)
        if self.whole:
            steps = math.floor((drawn - start) / (step or 1) + 0.5)
            return min(max(start + steps * (step or 1), start), to)
        if step is not None:
            return float(min(max(round((drawn - start) / step) * step + start, start), to))
        return min(drawn, _below(to))

    def draw(self, numbers: RandomState) -> Any:
        """A random value."""
        return self.value(self.number(numbers))

    def holds(self, drawn: Number) -> bool:
        """Whether a number is of the range, or the index of a choice."""
        if self.range is None:
            return drawn in range(len(self.choices))
        return self.range.start <= drawn <= self.range.to


def _below(to: float) -> float:
    """The largest number below the end of a range."""
    return math.nextafter(to, -math.inf)


_RANGE = TypeAdapter(Range)


def space_settings(sweep: Sweep, problems: list[Problem]) -> list[Setting]:
    """The settings of the search space. Mistakes are added to `problems`, and such settings left
    out."""
    settings = []
    for key, given in (sweep.space or {}).items():
        at: Keys = ("sweep", "space", key)
        if isinstance(given, Mapping) and "choices" in given:
            problems += [Problem((*at, k), unknown_key(k, ["choices"])) for k in given if k != "choices"]
            at, given = (*at, "choices"), given["choices"]
        if isinstance(given, list):
            if len({str(choice) for choice in given}) < len(given):
                problems.append(Problem(at, "list each choice only once"))
            elif given:
                settings.append(Setting(key, at, given))
            else:
                problems.append(Problem(at, "the list of choices is empty; give at least one value"))
        elif isinstance(given, Mapping) and [type(value) for value in given.values()] == [list]:
            problems += [Problem((*at, k), "unknown key; did you mean choices?") for k in given]
        elif isinstance(given, Mapping):
            range_problems: list[Problem] = []
            limits: Range | None = validated(_RANGE, given, range_problems, owner_of=lambda path: Range)
            problems += [Problem((*at, *problem.path), problem.message) for problem in range_problems]
            if limits is not None and (wrong := limits.wrong()) is not None:
                problems.append(Problem(at, wrong))
            elif limits is not None:
                settings.append(Setting(key, at, [], limits))
        else:
            problems.append(
                Problem(at, f"expected a list of choices, or {{from: …, to: …}}, got {shortened(given)}")
            )
    return settings


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARISON = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(<=|>=|==|!=|<|>)\s*([\w.+-]+)\s*")


@dataclass(config=STRICT)
class Constraint:
    """A comparison of one setting with a number, a word or another setting: `train.batch_size <=
    128`."""

    text: str
    left: str
    comparison: str
    right: str

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the plain values of a configuration satisfy it. Raises ConfigError where the
        two sides cannot be compared."""
        left, right = self._value(self.left, values), scalar(self.right)
        if isinstance(right, str) and "." in right:
            right = self._value(right, values)
        ordered = all(isinstance(side, Number) and not isinstance(side, bool) for side in (left, right))
        if self.comparison not in ("==", "!=") and not ordered:
            raise ConfigError(
                f"{self.text!r}: {shortened(left)} and {shortened(right)} have no order; "
                "compare numbers, or use == or !="
            )
        return COMPARISONS[self.comparison](left, right)

    def _value(self, key: str, values: Mapping[str, Any]) -> Any:
        """The value of a setting; for a plug-in with options its name."""
        try:
            value = get_dotted(values, key)
        except KeyError:
            raise ConfigError(f"{self.text!r}: the configuration does not set {key}") from None
        return next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else value


def constraints_of(sweep: Sweep, problems: list[Problem]) -> list[Constraint]:
    """The comparisons under `where`. A text that is not a comparison is added to `problems`."""
    constraints = []
    for index, text in enumerate(sweep.where):
        parts = _COMPARISON.fullmatch(text)
        if parts is None:
            problems.append(
                Problem(
                    ("sweep", "where", index),
                    f"{text!r} is not a comparison; write for example `train.batch_size <= 128`",
                )
            )
        else:
            constraints.append(Constraint(text, parts[1], parts[2], parts[3]))
    return constraints
