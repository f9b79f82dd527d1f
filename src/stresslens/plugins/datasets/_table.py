"""Tables of image files: reading of CSV and parquet, and the check of their rows."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from stresslens.core.errors import DataError
from stresslens.core.extras import extra
from stresslens.core.plain_rows import csv_rows
from stresslens.core.spelling import closest
from stresslens.core.text import repeated_words
from stresslens.plugins.datasets._class_folders import PARTS


def table_rows(path: Path, encoding: str | None) -> list[tuple[int, dict[str, str]]]:
    """The line number and the values by column of each row, checked, with `/` in their paths.

    Raises DataError for a table that cannot be read, or that lists every invalid row.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path, encoding)
    for _, row in rows:
        row["path"] = _with_slashes(path.parent, row["path"])
    _check_rows(path, rows)
    return rows


def _with_slashes(folder: Path, text: str) -> str:
    """A path as it is here, if it was written on Windows."""
    return text.replace("\\", "/") if "\\" in text and not os.path.exists(folder / text) else text


def _csv_rows(path: Path, encoding: str | None) -> list[tuple[int, dict[str, str]]]:
    """The line number and the values by column of each row."""
    rows, ended = csv_rows(
        path,
        partial(_check_columns, path),
        encoding=encoding,
        remedy="a table of Windows may need `encoding: cp1252`",
    )
    if rows and not ended:
        _check_last_line(path, rows)
    return rows


def _check_last_line(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
    """Raises DataError if the last line, which has no end, stops in the beginning of another row's
    label."""
    line, last = rows[-1]
    labels = Counter(row["label"] for _, row in rows)
    longer = [label for label in labels if label != last["label"] and label.startswith(last["label"])]
    if labels[last["label"]] == 1 and longer:
        raise DataError(
            f"{path}:{line}: the last line has no end, and its label {last['label']!r} is the beginning of "
            f"{longer[0]!r}: the table is cut short"
        )


def _parquet_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    with extra("parquet", f"{path}, a parquet file (CSV needs nothing),", raises=DataError):
        import pyarrow
        import pyarrow.parquet
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    if "path" not in table.column_names and any("binary" in str(kind) for kind in table.schema.types):
        raise DataError(
            f"{path} holds the pictures themselves, which another dataset reads: "
            f"{{huggingface: {{path: {path}}}}}"
        )
    _check_columns(path, table.column_names)
    return [
        (line, {k: "" if v is None else str(v).strip() for k, v in row.items()})
        for line, row in enumerate(table.to_pylist(), 1)
    ]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}: {closest(missing[0], list(columns))}; "
            "it needs path and label"
        )
    if double := repeated_words(columns):
        raise DataError(f"{path} has the column {double[0]!r} more than once")
    taken = [name for name in columns if name in ("file", "width", "height", "bytes")]
    if taken:
        raise DataError(f"{path}: the column {taken[0]!r} has the name of a measured column; rename it")


def _check_rows(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
    """Raises DataError that lists every invalid row.

    A row is invalid without a path or a label, with an unknown part, or with a file that another
    row has.
    """
    seen: dict[str, tuple[int, str]] = {}
    wrong = []
    for line, row in rows:
        if not row["path"] or not row["label"]:
            wrong.append(f"{path}:{line}: no {'path' if not row['path'] else 'label'}")
            continue
        if "\0" in row["path"]:
            wrong.append(f"{path}:{line}: the path holds a zero byte")
        if re.match(r"[A-Za-z]:[\\/]|//", row["path"]) and not os.path.exists(path.parent / row["path"]):
            wrong.append(
                f"{path}:{line}: {row['path']} is a path of a Windows computer; "
                "write the paths as they are from the folder of the table"
            )
        if row.get("group") == "":
            wrong.append(f"{path}:{line}: no group; a single image needs its own group")
        if "split" in row and row["split"].lower() not in PARTS:
            wrong.append(f"{path}:{line}: split {row['split']!r}: expected train, validation or test")
        first, label = seen.setdefault(os.path.normpath(row["path"]), (line, row["label"]))
        if first != line:
            how = "again" if label == row["label"] else f"as {row['label']!r} here and as {label!r}"
            wrong.append(f"{path}:{line}: {row['path']} is listed {how} in line {first}")
    if wrong:
        raise DataError("\n".join(wrong))
    if not rows:
        raise DataError(f"{path} lists no image")
