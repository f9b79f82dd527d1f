"""Heat maps: a matrix of counts as shaded cells, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import escape
from numpy.typing import NDArray

from stresslens.charts.chart import LETTER, Chart, distinct
from stresslens.core.text import brief

CELL, SMALL = 30, 8
"""The side of a cell with its number, and of one without, in the drawing's units."""
NUMBERED = 25
"""Up to this number of rows and columns, cells have their numbers and rows their names."""
DARKEST = 0.52
"""The opacity of a full cell; text on it keeps its contrast."""
NAME = 16


def heat_chart(
    counts: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], *, title: str, x_label: str
) -> Chart:
    """Counts (R, C) with the names of their rows and columns. A cell is the darker, the larger its
    share of the row."""
    large = max(counts.shape) > NUMBERED
    side = SMALL if large else CELL
    names = [] if large else [brief(name, NAME) for name in rows]
    heads = [] if large else [brief(name, NAME) for name in columns]
    left = 10 + LETTER * max(map(len, names), default=0)
    top = 26 + LETTER * max(map(len, heads), default=0)
    svg = [f'<text class="unit" x="{left:g}" y="12">{escape(x_label)}</text>']
    for k, head in enumerate(heads):
        x, y = left + side * (k + 0.5) + 4, top - 6
        svg.append(f'<text x="{x:g}" y="{y:g}" transform="rotate(-90 {x:g} {y:g})">{escape(head)}</text>')
    for i, row in enumerate(counts.tolist()):
        y = top + side * i
        if names:
            svg.append(
                f'<text class="end" x="{left - 6:g}" y="{y + side / 2 + 4:g}">{escape(names[i])}</text>'
            )
        for j, n in enumerate(row):
            svg += _cell(left + side * j, y, side, n, n / max(1, sum(row)), f"{rows[i]} as {columns[j]}: {n}")
    keys = distinct(["truth", *columns])
    numbers = [dict(zip(keys, (name, *row))) for name, row in zip(rows, counts.tolist())]
    width, height = left + side * counts.shape[1] + 8, top + side * counts.shape[0] + 8
    return Chart(title, "".join(svg), width, height, numbers)


def _cell(x: float, y: float, side: int, n: int, share: float, said: str) -> list[str]:
    if not n:
        return []
    box = f'x="{x:g}" y="{y:g}" width="{side - 1}" height="{side - 1}"'
    svg = [f'<rect class="heat" {box} fill-opacity="{0.06 + (DARKEST - 0.06) * share:.2f}">']
    svg.append(f"<title>{escape(said)}</title></rect>")
    if side == CELL:
        middle = f'x="{x + side / 2 - 0.5:g}" y="{y + side / 2 + 4:g}"'
        svg.append(f'<text class="mid cell" {middle}>{n}</text>')
    return svg
