"""Files of predictions that other programs wrote, as columns, some rows at a time."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stresslens.core.errors import DataError, first_line
from stresslens.core.extras import extra

ROWS = 50_000
"""TableRows that are held at a time."""
FORMATS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".npz")


class TableRows(NamedTuple):
    """Some rows of a file: the place of the first (its line, or its number from 1), and a list or an array
    (n,) or (n, K) for each column."""

    first: int
    columns: Mapping[str, Any]


def is_prediction_file(path: Path) -> bool:
    """Whether a path is a file of one of the `FORMATS`."""
    return path.suffix.lower() in FORMATS and path.is_file()


def rows_of(path: Path) -> Iterator[TableRows]:
    """The rows of a file of predictions, at most `ROWS` at a time.

    CSV, TSV and text have a line of column names. JSON is a list of objects, an object of lists, a table
    of `columns` and `data`, or, for each image, a list of {label, score}; JSON lines have an object a
    line. The arrays of an npz file are columns. Raises DataError, with the line, for a file that cannot
    be read, or that is no table.
    """
    kind = path.suffix.lower()
    with _told(path):
        if kind in (".csv", ".tsv", ".txt"):
            yield from _of_csv(path)
        elif kind in (".jsonl", ".ndjson"):
            yield from _of_json_lines(path)
        elif kind == ".json":
            yield from _of_json(path)
        elif kind == ".parquet":
            yield from _of_parquet(path)
        elif kind == ".npz":
            yield from _of_npz(path)
        else:
            raise DataError(f"{path}: a file of predictions ends in {', '.join(FORMATS)}")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or first_line(error)}") from None
    except UnicodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8: {error}; save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table of comma-separated values: {error}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: this is no JSON: {error.msg}") from None
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from None


def _of_csv(path: Path) -> Iterator[TableRows]:
    with path.open("rb") as opened:
        encoding = "utf-16" if opened.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as text:
        head = text.readline()
        delimiter = max(",;\t|", key=head.count)
        columns = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
        _check_columns(path, columns)
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            first = reader.line_num + 2
            rows = []
            for row in islice(reader, ROWS):
                if len(row) != len(columns) and row:
                    many = "more" if len(row) > len(columns) else "fewer"
                    raise DataError(f"{path}:{reader.line_num + 1}: {many} values than columns")
                if row:
                    rows.append(row)
            if not rows:
                return
            yield TableRows(first, {name: list(values) for name, values in zip(columns, zip(*rows))})


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not any(columns):
        raise DataError(f"{path} has no line of column names")
    if twice := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
        raise DataError(f"{path} has the column {twice[0]!r} more than once")


def _of_json_lines(path: Path) -> Iterator[TableRows]:
    with path.open(encoding="utf-8") as text:
        first = 1
        while lines := list(islice(text, ROWS)):
            objects = []
            for number, line in enumerate(lines, first):
                try:
                    if line.strip():
                        objects.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise DataError(f"{path}:{number}: this is no JSON: {error.msg}") from None
            if objects:
                yield TableRows(first, _of_objects(path, objects))
            first += len(lines)


def _of_json(path: Path) -> Iterator[TableRows]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(values, Mapping) and {"columns", "data"} <= values.keys():
        names = [str(name) for name in values["columns"]]
        _check_columns(path, names)
        values = [dict(zip(names, row)) for row in values["data"]]
    if isinstance(values, Mapping):
        lists = {str(name): value for name, value in values.items() if isinstance(value, list)}
        if not lists:
            raise DataError(f"{path}: no key of it holds a list with a value for each image")
        yield TableRows(1, _same_length(path, lists))
        return
    if not isinstance(values, list) or not values:
        raise DataError(f"{path} holds no list of predictions")
    yield TableRows(1, _of_objects(path, values))


def _of_objects(path: Path, values: Sequence[Any]) -> dict[str, list[Any]]:
    """Columns of objects, or of lists of {label, score}, which pipelines of transformers return."""
    if all(isinstance(row, list) for row in values):
        values = [{"scores": _by_label(path, number, row)} for number, row in enumerate(values, 1)]
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(values, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"{path}: entry {number} is {type(row).__name__}; expected an object")
        flat = dict(row)
        for name in [name for name, value in row.items() if isinstance(value, Mapping)]:
            flat |= {f"{name}_{label}": score for label, score in flat.pop(name).items()}
        rows.append(flat)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _by_label(path: Path, number: int, row: Sequence[Any]) -> dict[str, Any]:
    try:
        return {str(each["label"]): each["score"] for each in row}
    except (TypeError, KeyError):
        raise DataError(f"{path}: entry {number} is a list; expected a list of {{label, score}}") from None


def _of_parquet(path: Path) -> Iterator[TableRows]:
    with extra("parquet", f"{path}"):
        import pyarrow
        import pyarrow.parquet
    first = 1
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(ROWS):
            columns = {name: batch.column(k).to_pylist() for k, name in enumerate(batch.schema.names)}
            yield TableRows(first, columns)
            first += batch.num_rows
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}") from None


def _of_npz(path: Path) -> Iterator[TableRows]:
    with np.load(path, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
        columns = {name: values for name, values in columns.items() if values.ndim in (1, 2)}
    yield TableRows(1, _same_length(path, columns))


def _same_length(path: Path, columns: Mapping[str, Any]) -> Mapping[str, Any]:
    lengths = {name: len(values) for name, values in columns.items()}
    if not lengths:
        raise DataError(f"{path} has no array with a row for each image")
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise DataError(f"{path}: its columns have different lengths ({said})")
    return columns
