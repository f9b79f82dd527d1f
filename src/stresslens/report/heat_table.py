"""Tables of accuracies whose cells are shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.core.types import Estimate


@dataclass(frozen=True)
class Heat:
    """A cell: its estimate, the shade from 0 to 9 and a class."""

    estimate: Estimate
    shade: int
    kind: str = ""


@dataclass(frozen=True)
class HeatTable:
    """A table of accuracies: `rows` are (name, cells), None where there is nothing to say."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Heat | None]]]
    note: str
    eps: float = 0.0


def heat(estimate: Estimate | None, kind: str = "") -> Heat | None:
    """The darker, the fewer are right."""
    if estimate is None or not math.isfinite(estimate.value):
        return None
    return Heat(estimate, math.ceil(9 * (1 - estimate.value)), kind)
