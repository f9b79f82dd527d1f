"""Plain rows, dictionaries with the same keys, as a data frame, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stresslens.core.files import write_bytes


def data_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a `pandas.DataFrame` where pandas is installed, otherwise a list of dictionaries."""
    try:
        import pandas
    except ImportError:
        return [dict(row) for row in rows]
    return pandas.DataFrame(list(rows))


def csv_of(rows: Sequence[Mapping[str, Any]], path: str | Path | None) -> str | Path:
    """Rows as CSV: the text, or with `path` the file that was written. What is missing is empty."""
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if columns:
        table.writeheader()
        table.writerows(rows)
    if path is None:
        return text.getvalue()
    write_bytes(Path(path), text.getvalue().encode("utf-8", errors="replace"))
    return Path(path)


def latex_of(columns: Sequence[str], cells: Sequence[Sequence[str]], align: str) -> str:
    """Cells as a LaTeX tabular with the rules of the package booktabs; `align` has a letter a column."""
    head, *body = (" & ".join(map(_latex, line)) + r" \\" for line in [columns, *cells])
    begin, end = rf"\begin{{tabular}}{{{align}}}", r"\end{tabular}"
    return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end, ""])


_LINES = re.compile("[ \t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]+")
_SPECIAL: Mapping[str, str] = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "∞": r"$\infty$",
    "\u202f": r"\,",
    "\u00a0": "~",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in _LINES.sub(" ", text))
