"""The key `grid:` of a study file: the variants under `runs`, crossed with the grid and data
sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stresslens.config.data_sizes import DataSizePoint, DataSizes
from stresslens.config.dotted_keys import single_settings
from stresslens.config.registry import Keys
from stresslens.config.run_names import value_in_words
from stresslens.core.errors import Problem

Change = tuple[str, Any, Keys]
"""A dotted key, its value, and where the study file writes it."""


@dataclass(frozen=True)
class Cell:
    """A variant before validation: one entry of `runs` at one point of the grid and one data
    size."""

    name: str
    changes: list[Change]
    stem: str
    """The name without the data size."""
    point: DataSizePoint | None


def checked_grid(
    grid: Mapping[str, list[Any]] | None, problems: list[Problem]
) -> dict[str, list[Any]] | None:
    """The grid without keys that have no value, and with each value once; these mistakes are added to
    `problems`."""
    if grid is None:
        return None
    checked: dict[str, list[Any]] = {}
    for key, values in grid.items():
        for k, value in enumerate(values):
            if any(type(value) is type(other) and value == other for other in values[:k]):
                problems.append(Problem(("grid", key), f"{value_in_words(value)} is given twice"))
            else:
                checked.setdefault(key, []).append(value)
        if not values:
            problems.append(Problem(("grid", key), "give at least one value"))
    return checked


def number_of_cells(
    runs: Mapping[str, Mapping[str, Any] | None] | None,
    grid: Mapping[str, list[Any]] | None,
    data_sizes: DataSizes | None,
) -> int:
    """How many cells `cells` gives, counted without making them."""
    points = sum(len(data_sizes.points_of(name)) if data_sizes else 1 for name in runs or {"": {}})
    return points * math.prod(len(values) for values in (grid or {}).values())


def cells(
    runs: Mapping[str, Mapping[str, Any] | None] | None,
    grid: Mapping[str, list[Any]] | None,
    data_sizes: DataSizes | None,
    written: Mapping[str, str],
) -> Iterator[Cell]:
    """Every entry of `runs` at every point of the grid and every data size.

    `written` gives each key of the grid as the study file writes it, from which folders are named: so a
    study with a key of version 0.1.0 finds the runs that it made.
    """
    named = runs or {"" if grid or data_sizes else "run": {}}
    axes = [[(key, value, ("grid", key, i)) for i, value in enumerate(v)] for key, v in (grid or {}).items()]
    for name, changes in named.items():
        run_changes = [
            (".".join(path), value, ("runs", name, *path)) for path, value in single_settings(changes or {})
        ]
        for cell in itertools.product(*axes):
            grid_label = ",".join(
                f"{written[key].rpartition('.')[2]}={value_in_words(value)}" for key, value, _ in cell
            )
            stem = ",".join(filter(None, [name, grid_label]))
            for point in data_sizes.points_of(name) if data_sizes else [None]:
                label = data_sizes.label(point) if data_sizes and point else ""
                yield Cell(",".join(filter(None, [stem, label])), [*run_changes, *cell], stem, point)
