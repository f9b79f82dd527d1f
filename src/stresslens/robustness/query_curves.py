"""Query curves: what an attack that counts queries has reached after so many of them, by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.config import registry
from stresslens.config.registry import Bound
from stresslens.core.ball import ABSOLUTE, RELATIVE
from stresslens.metrics.intervals import order_median, wilson
from stresslens.robustness.result_file import QueryLevel

QUERIES = "queries"
"""The option by which an attack says that it counts queries."""
FIRST = 10


def query_marks(attack: Bound) -> tuple[int, ...]:
    """The numbers of queries at which its curve is kept: 10, 20, 50, 100, …, and all of them; none for
    an attack that does not count queries."""
    if QUERIES not in registry.options_of(attack.function):
        return ()
    most = int(attack.all_options[QUERIES])
    powers = (FIRST * 10**power for power in range(len(str(most))))
    return (*(mark for power in powers for mark in (power, 2 * power, 5 * power) if mark < most), most)


class QueryLog:
    """The smallest perturbation of each of n images that fooled the model, by the number of the query.

    The last of the `marks` holds all later queries too. Perturbations outside the ball count as the
    attack saw them; those inside only if they also fool the float32 model.
    """

    def __init__(self, marks: Sequence[int], n: int, device: torch.device) -> None:
        self.marks = torch.tensor(marks, dtype=torch.int64, device=device)
        self._sizes = torch.full((len(marks) * n,), torch.inf, device=device)
        self._asked = torch.zeros(n, dtype=torch.int64, device=device)

    def note(self, rows: Tensor, sizes: Tensor) -> None:
        """Takes a query about each of the images `rows` (m,), in this order, and the size (m,) of its
        perturbation, infinite where it did not fool the model."""
        order = rows.argsort(stable=True)
        place = torch.arange(len(rows), device=rows.device)
        rank = torch.empty_like(place)
        rank[order] = place - torch.searchsorted(rows[order], rows[order])
        number = self._asked[rows] + rank + 1
        self._asked.scatter_add_(0, rows, torch.ones_like(rows))
        mark = torch.searchsorted(self.marks, number).clamp_max(len(self.marks) - 1)
        self._sizes.scatter_reduce_(0, mark * len(self._asked) + rows, sizes.to(self._sizes), "amin")

    def smallest(self) -> Tensor:
        """(n, marks) the smallest perturbation within so many queries."""
        if not len(self.marks):
            return self._sizes.new_zeros(len(self._asked), 0)
        return self._sizes.reshape(len(self.marks), len(self._asked)).cummin(0).values.T

    def sizes(self, count: int, rows: Tensor) -> Tensor:
        """(count, marks) `smallest` at the positions `rows` (n,), and infinity elsewhere."""
        values = torch.full((count, len(self.marks)), torch.inf, device=rows.device)
        values[rows] = self.smallest()
        return values

    def counts(self, radius: Tensor) -> dict[int, int]:
        """For each mark, how many of the images it broke within radii (n,)."""
        broken = _inside(self.smallest(), radius[:, None]).sum(0)
        return dict(zip(self.marks.tolist(), broken.tolist()))


def no_sizes(attacks: Sequence[Bound], radii: int, x: Tensor) -> Tensor:
    """(n, attacks, radii, marks) infinity, for the images x (n, …) and the longest of their curves."""
    most = max((len(query_marks(attack)) for attack in attacks), default=0)
    return torch.full((len(x), len(attacks), radii, most), torch.inf, device=x.device)


def query_levels(
    attack: Bound, sizes: NDArray[np.float32], right: NDArray[np.bool_], eps: float
) -> tuple[QueryLevel, ...]:
    """The curve of an attack at a radius, from the `QueryLog.sizes` (n, marks) of the images that count;
    `right` (n,) are correct without attack. Empty for an attack that does not count queries."""
    levels = []
    for place, mark in enumerate(query_marks(attack)):
        found = sizes[:, place].astype(np.float64)
        median = order_median(found[right])
        broken = ~right | _inside(found, eps)
        levels.append(
            QueryLevel(
                queries=mark,
                robust=wilson(int((~broken).sum()), len(right)),
                perturbation=median if np.isfinite(median.value) else None,
            )
        )
    return tuple(levels)


def _inside(sizes: Any, radius: Any) -> Any:
    """Whether perturbations of these sizes are inside a ball, up to rounding."""
    return sizes <= radius * (1 + 2 * RELATIVE) + 2 * ABSOLUTE
