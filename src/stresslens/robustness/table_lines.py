"""The cells of a table in a text file: CSV with commas, semicolons or tabs, or Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stresslens.core.errors import DataError

DELIMITERS = "\t;,|"
"""In the order in which they are preferred where several fit."""
MOST_BYTES = 2**20
SAME = {
    **dict.fromkeys(map(ord, "\ufeff\u200b\u200e\u200f\u2060\u00ad")),
    **{ord("\N{MINUS SIGN}"): "-", ord("\N{FULLWIDTH PERCENT SIGN}"): "%"},
    **dict.fromkeys(map(ord, "\N{FRACTION SLASH}\N{DIVISION SLASH}"), "/"),
}
"""Characters that show nothing, and those that are another way to write a common one."""
LINE_END = r"\r\n|\r|\n"


class TableLines(NamedTuple):
    """The rows of cells with their line numbers, first the column names; and how many remarks (lines
    that begin with #) were left out. A cell has single plain spaces, and none at its ends."""

    rows: list[tuple[int, list[str]]]
    remarks: int


def table_lines(path: Path) -> TableLines:
    """Reads the cells of a table. Every row has as many as there are column names.

    The delimiter is the one that gives all rows equally many cells. Raises DataError with file and
    line.
    """
    text = _text(path)
    lines = re.split(LINE_END, text)
    markdown = [(number, line) for number, line in enumerate(lines, 1) if line.lstrip().startswith("|")]
    if markdown:
        cells = ((number, _markdown_cells(line)) for number, line in markdown)
        lines_read = TableLines([row for row in cells if not _is_rule(row[1])], 0)
    else:
        lines_read = _delimited(path, text)
    rows = _without_empty_columns(lines_read.rows)
    if len(rows) < 2:
        raise DataError(f"{path}: expected a line of column names and a line for each model or attack")
    header = rows[0][1]
    for number, cells_of_row in rows[1:]:
        if len(cells_of_row) != len(header):
            raise DataError(
                f"{path}:{number}: {len(cells_of_row)} cells; the {len(header)} columns are "
                f"{', '.join(header)} (a cell that holds the delimiter, such as 91,2 between commas, needs "
                "quotation marks)"
            )
    return lines_read._replace(rows=rows)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise DataError(f"{path} is larger than a table of accuracies may be ({MOST_BYTES:,} bytes)")
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{path} is a workbook or an archive; save the table as CSV (UTF-8)")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(LINE_END.encode(), content[: error.start]))
        raise DataError(
            f"{path}:{line}: this is not text in UTF-8 (byte {error.start}); save the table as CSV in UTF-8"
        ) from None


def _markdown_cells(line: str) -> list[str]:
    inside = re.sub(r"(?<!\\)\|$", "", line.strip()[1:])
    return [_clean(cell.replace("\\|", "|").replace("**", "")) for cell in re.split(r"(?<!\\)\|", inside)]


def _is_rule(cells: list[str]) -> bool:
    """Whether a line only divides the column names of Markdown from the rows."""
    return all(re.fullmatch(r":?-+:?", cell) for cell in cells)


def _clean(cell: str) -> str:
    return " ".join(cell.translate(SAME).split())


def _delimited(path: Path, text: str) -> TableLines:
    """The cells with the delimiter that a line `sep=;` names, or that gives all rows equally many cells;
    else with the one that is most frequent in the column names."""
    named = re.match(rf"sep=(.)(?:{LINE_END})", text)
    if named is not None:
        return _with(path, text[named.end() :], named[1], before=1)
    lines = re.split(LINE_END, text)
    names = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    readings = []
    for delimiter in DELIMITERS if names else "":
        try:
            readings.append(_with(path, text, delimiter))
        except DataError:
            continue
        counts = {len(cells) for _, cells in readings[-1].rows}
        if len(counts) == 1 and counts != {1}:
            return readings[-1]
    return _with(path, text, max(",;\t|", key=names.count))


def _with(path: Path, text: str, delimiter: str, before: int = 0) -> TableLines:
    rows = list(_csv_rows(path, text, delimiter, before))
    kept = [(line, cells) for line, cells in rows if not cells[0].startswith("#")]
    pipes = delimiter == "|"  # Markdown without pipes at the ends of its lines
    return TableLines([row for row in kept if not (pipes and _is_rule(row[1]))], len(rows) - len(kept))


def _csv_rows(path: Path, text: str, delimiter: str, before: int) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, with the line in which each begins."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True
    )
    line = 1 + before
    try:
        for row in reader:
            cells = [_clean(cell) for cell in row]
            if any(cells):
                yield line, cells
            line = 1 + before + reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}:{line}: {error} (quotation marks stand around a whole cell)") from None


def _without_empty_columns(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """The rows without the columns at their ends that have neither a name nor a cell: every line of the
    file ends with the delimiter."""
    while rows and len(rows[0][1]) > 1 and not any(cells[len(rows[0][1]) - 1 :] != [""] for _, cells in rows):
        rows = [(line, cells[:-1]) for line, cells in rows]
    return rows
