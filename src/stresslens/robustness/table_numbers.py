"""Numbers as tables write them: "91,2 %", "0.912 ± 0.004", "8/255", "10 000"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from stresslens.core.errors import DataError

NUMBER = re.compile(r"(?P<value>\d*[.,]?\d+(?:e[+-]?\d{1,2})?)\s*%?\s*(?:(?:±|\+/-|\(|\[).*)?", re.IGNORECASE)
"""A number with a decimal point or comma; a percent sign, a spread or an interval may follow it."""
GROUPED = re.compile(r"\d{1,3}([ .,'’_])\d{3}(?:\1\d{3})*")
"""A whole number whose thousands are divided by a mark."""


def decimal_mark(path: Path, numbers: Iterable[tuple[int, str]]) -> str | None:
    """The decimal mark of measured numbers (line, cell), "." or ","; None where all are whole numbers.

    Raises DataError with the line where both marks are used.
    """
    seen: dict[str, tuple[int, str]] = {}
    for line, cell in numbers:
        if found := re.match(r"\d*([.,])\d+(?![\d.,])", cell):
            seen.setdefault(found[1], (line, cell))
    if len(seen) > 1:
        (before, one), (line, other) = sorted(seen.values())
        raise DataError(
            f"{path}:{line}: {other!r} here and {one!r} in line {before}: is the decimal mark a point "
            "or a comma? Write all numbers with the same one"
        )
    return next(iter(seen), None)


def with_points(cell: str, mark: str | None) -> str:
    """The cell with points in place of decimal commas, if these are the decimal mark."""
    return re.sub(r"(?<!\s),(?=\d)", ".", cell) if mark == "," else cell


def whole_number(path: Path, line: int, what: str, cell: str, mark: str | None) -> int:
    """A whole number from 1 up, for example "10,000", "10 000" or "1000.0".

    Raises DataError, also where the mark between its digits may be the decimal mark: "10.000" is ten
    thousand only in a table with decimal commas.
    """
    grouped = GROUPED.fullmatch(cell)
    if grouped and grouped[1] == (mark or "."):
        raise DataError(
            f"{path}:{line}: {what} is {cell!r}, which may have decimals or thousands; "
            "write it without a mark"
        )
    digits = cell.replace(grouped[1], "") if grouped else re.sub(r"[.,]0+$", "", cell)
    if not re.fullmatch(r"\d{1,15}", digits) or int(digits) < 1:
        raise DataError(f"{path}:{line}: {what} is {cell!r}; expected a whole number from 1 up")
    return int(digits)


def last_digit(number: str) -> float:
    """The unit of the last digit of a number with a decimal point: 0.01 of 91.25, 1 of 91."""
    mantissa, _, exponent = number.lower().partition("e")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))
