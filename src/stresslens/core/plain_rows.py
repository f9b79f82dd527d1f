"""Plain rows, dictionaries with the same keys, as a data frame, as CSV and as LaTeX, and from CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import write_bytes


def data_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a `pandas.DataFrame` where pandas is installed, otherwise a list of dictionaries."""
    try:
        import pandas
    except ImportError:
        return [dict(row) for row in rows]
    return pandas.DataFrame(list(rows))


def csv_of(
    rows: Sequence[Mapping[str, Any]], path: str | Path | None, columns: Sequence[str] = ()
) -> str | Path:
    """Rows as CSV: the text, or with `path` the file that was written. What is missing is empty. `columns`
    stand first, also where there are no rows."""
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if columns:
        table.writeheader()
        table.writerows(rows)
    if path is None:
        return text.getvalue()
    write_bytes(Path(path), text.getvalue().encode("utf-8", errors="replace"))
    return Path(path)


class CsvRows(NamedTuple):
    """The rows of a CSV file: the number of the line in which each ends, and its values by column, without
    space around them."""

    rows: list[tuple[int, dict[str, str]]]
    ended: bool
    """Whether the last line has an end."""


def csv_lines(text: TextIO, delimiters: str = ",;\t") -> tuple[Iterator[str], str, int]:
    """The lines of an opened CSV file from that of the columns on, what divides its cells, and how many
    lines are before.

    Cells are divided by what a first line `sep=;` of Excel names, or else by the most frequent of the
    `delimiters` in the line of the columns.
    """
    head = text.readline()
    named = re.fullmatch(r'sep=([^\r\n" ])\r?\n', head)
    if named:
        head = text.readline()
    delimiter = named[1] if named else max(delimiters, key=head.count)
    return chain([head] * bool(head), text), delimiter, 1 if named else 0


def csv_rows(
    file: Path,
    check_columns: Callable[[Sequence[str]], None],
    *,
    encoding: str | None = None,
    remedy: str = "save it as UTF-8",
) -> CsvRows:
    """The rows of a CSV file in `encoding`, or else in UTF-8, or in UTF-16 with its mark.

    Cells are divided by what a first line `sep=;` of Excel names, or else by the most frequent of comma,
    semicolon and tab in the line of the columns. `check_columns` sees the columns before any row is read.
    `remedy` says what to do about a file in another encoding.
    Raises ConfigError for an unknown encoding, and DataError, with the line, for a file that cannot be
    read, that is no such table, or whose row has more or fewer values than columns.
    """
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError for a zero byte in the path
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    said = f"as a table of comma-separated values in {encoding or ('UTF-16' if wide else 'UTF-8')}"
    try:
        text = content.decode(encoding or ("utf-16" if wide else "utf-8-sig"))
        lines, delimiter, before = csv_lines(io.StringIO(text, newline=""))
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        check_columns(reader.fieldnames or [])
        rows = []
        for row in reader:
            if None in row or None in row.values():
                few = "more" if None in row else "fewer"
                raise DataError(f"{file}:{before + reader.line_num}: {few} values than columns")
            rows.append((before + reader.line_num, {name: value.strip() for name, value in row.items()}))
    except LookupError:
        raise ConfigError(f"encoding: there is no {encoding!r}; utf-8, cp1252 and cp932 are some") from None
    except UnicodeError as error:
        raise DataError(f"{file} cannot be read {said}: {error}; {remedy}") from None
    except csv.Error as error:
        raise DataError(f"{file} cannot be read {said}: {error}") from None
    return CsvRows(rows, text.endswith(("\n", "\r")))


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
