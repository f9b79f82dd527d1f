"""Tables of results: shown as HTML, and given as rows, as a data frame, as CSV and as LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from markupsafe import Markup, escape

from stresslens.core.format import count, number, percent, plain, points
from stresslens.core.plain_rows import csv_of, data_frame, latex_of
from stresslens.core.text import brief, counted
from stresslens.core.types import Estimate

SHOWN = 12
"""Rows of a table that is shown; `to_frame` has all of them."""


@dataclass(frozen=True)
class Percent:
    """An estimate that is written in percent."""

    estimate: Estimate


@dataclass(frozen=True)
class PercentagePoints(Percent):
    """A difference that is written in percentage points, with its sign."""


Cell: TypeAlias = str | int | float | Estimate | Percent | None


class Tabular:
    """A result whose numbers are a table."""

    def _table(self) -> ResultTable:
        """The result as a table."""
        raise NotImplementedError

    def to_frame(self) -> Any:
        """The numbers as a `pandas.DataFrame` where pandas is installed, otherwise as plain rows: a
        list of dictionaries with the same keys.

        An estimate takes several columns: the value, its `low` and `high` bound and its `n`.
        """
        return data_frame(self._table().rows)

    def to_csv(self, path: str | Path | None = None) -> str | Path:
        """The numbers of `to_frame` as CSV: the text, or with `path` the file that was written.

        Raises StresslensError where the file cannot be written.
        """
        return csv_of(self._table().rows, path)

    def to_latex(self) -> str:
        """The table as a LaTeX tabular with the rules of the package booktabs; an estimate is written
        with its interval, as in the report."""
        return self._table().latex


class RowTable(Tabular):
    """A result that is its table: iterating gives the rows of `to_frame` as dictionaries, so that
    `pandas.DataFrame(result)` is the same table."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self._table().rows)


@dataclass(frozen=True)
class ResultTable:
    """Cells in rows; the first cell of a row is its name."""

    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Plain values by column. The bounds of an estimate are called `low` and `high`, or, if
        several columns have estimates, `COLUMN low` and `COLUMN high`."""
        of_estimates = {
            column
            for row in self.cells
            for column, cell in zip(self.columns, row)
            if isinstance(cell, Estimate | Percent)
        }
        rows = []
        for cells in self.cells:
            row: dict[str, Any] = {}
            for column, cell in zip(self.columns, cells):
                if column in of_estimates:
                    row |= _bounds(column, cell, f"{column} " if len(of_estimates) > 1 else "")
                else:
                    row[column] = cell
            rows.append(row)
        return rows

    def html(self, most: int = SHOWN) -> Markup:
        """The first `most` rows as an HTML table, and in words how many more there are."""
        texts = {column: k > 0 and self._is_text(k) for k, column in enumerate(self.columns)}
        head = Markup("").join(
            Markup("<th{}>{}</th>").format(_aligned(texts[column]), column) for column in self.columns
        )
        body = Markup("").join(
            Markup("<tr>{}</tr>").format(
                Markup("").join(
                    Markup("<td{}>{}</td>").format(_aligned(texts[column]), _shown(cell))
                    for column, cell in zip(self.columns, row)
                )
            )
            for row in self.cells[:most]
        )
        more = len(self.cells) - most
        rest = Markup("<p>{}: to_frame() has all.</p>").format(counted(more, "more row")) if more > 0 else ""
        return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}").format(head, body, rest)

    @property
    def latex(self) -> str:
        align = "".join("l" if k == 0 or self._is_text(k) else "r" for k in range(len(self.columns)))
        return latex_of(self.columns, [[cell_text(cell) for cell in row] for row in self.cells], align)

    def _is_text(self, k: int) -> bool:
        return any(isinstance(row[k], str) for row in self.cells)


def cell_text(cell: Cell) -> str:
    """A cell as text: `98.2 % (97.1 to 99.0)` for an estimate in percent; a missing value is a dash."""
    match cell:
        case PercentagePoints():
            return points(cell.estimate)
        case Percent():
            return percent(cell.estimate).replace(" (", "\u00a0% (", 1)
        case Estimate():
            return plain(cell)
        case float():
            return number(cell) if cell != round(cell, 4) or abs(cell) >= 1e6 else f"{cell:g}"
        case None:
            return "–"
        case bool():
            return "yes" if cell else "no"
        case int():
            return count(cell)
    return str(cell)


def _bounds(column: str, cell: Cell, before: str) -> dict[str, Any]:
    estimate = cell.estimate if isinstance(cell, Percent) else cell
    if not isinstance(estimate, Estimate):
        return {column: None, f"{before}low": None, f"{before}high": None, f"{before}n": None}
    low, high = (None if math.isnan(bound) else bound for bound in (estimate.low, estimate.high))
    return {column: estimate.value, f"{before}low": low, f"{before}high": high, f"{before}n": estimate.n}


def _shown(cell: Cell) -> Markup:
    value, space, interval = cell_text(cell).partition(" (") if not isinstance(cell, str) else (cell, "", "")
    if space:
        return Markup('{} <span class="interval">({}</span>').format(value, interval)
    return Markup("<bdi>{}</bdi>").format(brief(value)) if isinstance(cell, str) else escape(value)


def _aligned(text: bool) -> Markup:
    return Markup(' class="text"') if text else Markup("")
