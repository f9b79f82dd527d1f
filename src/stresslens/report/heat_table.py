"""Heat tables: accuracies in shaded cells."""

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
    """A table of accuracies: `rows` are (name, cells); a cell without a value is None."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Heat | None]]]
    note: str
    eps: float = 0.0


def heat(estimate: Estimate | None, kind: str = "") -> Heat | None:
    """A cell; the lower the accuracy, the darker."""
    if estimate is None or not math.isfinite(estimate.value):
        return None
    return Heat(estimate, math.ceil(9 * (1 - estimate.value)), kind)
