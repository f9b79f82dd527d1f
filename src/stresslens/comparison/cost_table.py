"""What each error costs, as the user gives it: a mapping, or a YAML, JSON or CSV file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from stresslens.config.yaml_source import Source
from stresslens.core.errors import ConfigError, Problem
from stresslens.core.plain_rows import csv_rows
from stresslens.core.spelling import closest
from stresslens.metrics.intervals import Floats

FORM = (
    "costs are {true class: {predicted class: cost}}; or a CSV table with a row for each true class and a "
    "column for each predicted class"
)


@dataclass(frozen=True)
class CostTable:
    """The costs of predicted classes, by true class. What is not given costs 0 for a right answer and 1
    for a wrong one. `place` is where they were read, for messages."""

    costs: Mapping[str, Mapping[str, float]]
    place: str

    @staticmethod
    def read(file: Path) -> CostTable:
        """The costs in a file. Raises ConfigError, with the line where it is known, for a file that
        cannot be read and for a cost that is not a number from 0 up, and DataError for a file that is no
        CSV table."""
        if file.suffix.lower() in (".csv", ".tsv", ".txt"):
            return CostTable(_of_csv(file), str(file))
        source = Source.read(file, form=FORM)
        if source.problems:
            raise ConfigError("\n".join(_at(source, problem) for problem in source.problems))
        return CostTable(_checked(source.values, lambda *path: source.place(path)), str(file))

    @staticmethod
    def of(given: Mapping[Any, Any]) -> CostTable:
        """The costs of a dictionary. Raises ConfigError for a cost that is not a number from 0 up."""
        return CostTable(_checked(given, lambda *path: "costs"), "costs")

    def matrix(self, classes: Sequence[str]) -> Floats:
        """(K, K) costs by true and predicted class. Raises ConfigError for a class that is none of these,
        and where no error costs anything."""
        place = {name: k for k, name in enumerate(classes)}
        named = [*self.costs, *(name for row in self.costs.values() for name in row)]
        if unknown := [name for name in named if name not in place]:
            raise ConfigError(
                f"{self.place}: there is no class {unknown[0]!r}; {closest(unknown[0], list(classes))}"
            )
        costs = 1.0 - np.eye(len(classes))
        for true, row in self.costs.items():
            for predicted, cost in row.items():
                costs[place[true], place[predicted]] = cost
        if not costs.any():
            raise ConfigError(f"{self.place}: every cost is 0, so all models cost the same")
        return costs


def _at(source: Source, problem: Problem) -> str:
    return f"{source.place(problem.path)}: {'.'.join(map(str, problem.path))} {problem.message}"


def _checked(values: Mapping[Any, Any], place: Callable[..., str]) -> dict[str, dict[str, float]]:
    if not values:
        raise ConfigError(f"{place()}: no cost is given; {FORM}")
    costs: dict[str, dict[str, float]] = {}
    for true, row in values.items():
        if not isinstance(row, Mapping):
            raise ConfigError(f"{place(true)}: {true} has {row!r}; {FORM}")
        costs[str(true)] = {
            str(predicted): _cost(cost, f"{place(true, predicted)}: {true} as {predicted}")
            for predicted, cost in row.items()
        }
    return costs


def _cost(value: Any, place: str) -> float:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= float(value) < math.inf:
        raise ConfigError(f"{place} costs {value!r}; a cost is a number from 0 up")
    return float(value)


def _of_csv(file: Path) -> dict[str, dict[str, float]]:
    columns: list[str] = []
    rows = csv_rows(file, columns.extend).rows
    if len(columns) < 2 or not rows:
        raise ConfigError(f"{file}: {FORM}")
    costs: dict[str, dict[str, float]] = {}
    for line, row in rows:
        true = row[columns[0]]
        if true in costs:
            raise ConfigError(f"{file}:{line}: {true} has a row already")
        costs[true] = {
            name: _cost(_number(row[name]), f"{file}:{line}: {true} as {name}")
            for name in columns[1:]
            if row[name]
        }
    return costs


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
