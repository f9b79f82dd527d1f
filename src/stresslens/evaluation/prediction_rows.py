"""Files of predictions that other programs wrote, as columns, some rows at a time."""

from __future__ import annotations

import csv
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stresslens.core.errors import DataError, first_line
from stresslens.core.extras import extra
from stresslens.core.plain_rows import csv_lines
from stresslens.core.text import repeated_words
from stresslens.evaluation.ranked_predictions import by_class, unranked

ROWS = 50_000
"""TableRows that are held at a time."""
FORMATS = (*(".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet"), *(".npz", ".npy", ".pt"))
RANKED_LINE = re.compile(r"([01]?\.\d+|[01]) (\S.*)")
"""A line of a text file of ultralytics: the probability of a class and its name."""


class TableRows(NamedTuple):
    """Some rows of a file: the place of each (its line, or its number from 1), and a list or an array (n,)
    or (n, K) for each column."""

    places: Sequence[int]
    columns: Mapping[str, Any]


def is_prediction_file(path: Path) -> bool:
    """Whether a path is a file of one of the `FORMATS`, or a folder of text files of ultralytics. A .pt
    file of TorchScript is a model."""
    if path.suffix.lower() == ".pt" and zipfile.is_zipfile(path):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            return not any("/code/" in name for name in archive.namelist())
    return (path.suffix.lower() in FORMATS and path.is_file()) or _is_folder_of_texts(path)


def _is_folder_of_texts(path: Path) -> bool:
    """Whether a folder holds the text files that ultralytics writes, one an image."""
    first = next(path.glob("*.txt"), None) if path.is_dir() else None
    if first is None:
        return False
    with first.open(encoding="utf-8", errors="replace") as text:
        return RANKED_LINE.match(text.readline()) is not None


def rows_of(path: Path) -> Iterator[TableRows]:
    """The rows of a file of predictions, at most `ROWS` at a time.

    CSV, TSV and text have a line of column names. JSON is a list of objects, an object of lists, a table
    of `columns` and `data`, or, for each image, a list of {label, score}; JSON lines have an object a
    line. The arrays of an npz file are columns; an npy file holds the scores (N, K) or answers (N,), and a
    pt file tensors by name, or batches of them. A folder has a text file for each image, with lines
    `0.93 cat`, as ultralytics writes. Raises DataError, with the line, for a file that cannot be read, or
    that is no table.
    """
    with _told(path):
        for rows in _rows_of(path):
            yield rows._replace(columns=unranked(rows.columns))


def _rows_of(path: Path) -> Iterator[TableRows]:
    kind = path.suffix.lower()
    if path.is_dir():
        yield from _of_texts(path)
    elif kind in (".csv", ".tsv", ".txt"):
        yield from _of_csv(path)
    elif kind in (".jsonl", ".ndjson"):
        yield from _of_json_lines(path)
    elif kind == ".json":
        yield from _of_json(path)
    elif kind == ".parquet":
        yield from _of_parquet(path)
    elif kind == ".npz":
        yield from _of_npz(path)
    elif kind == ".npy":
        yield _whole(path, _of_array(path, np.load(path, allow_pickle=False)))
    elif kind == ".pt":
        yield _whole(path, _of_torch(path))
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
    except (zipfile.BadZipFile, ValueError, EOFError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}") from None


def _of_csv(path: Path) -> Iterator[TableRows]:
    with path.open("rb") as opened:
        encoding = "utf-16" if opened.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as text:
        lines, delimiter, before = csv_lines(text, ",;\t|")
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        columns = [name.strip() for name in next((row for row in reader if row), [])]
        _check_columns(path, columns)
        places: list[int] = []
        rows: list[list[str]] = []
        for row in reader:
            place = before + reader.line_num
            if row and len(row) != len(columns):
                many = "more" if len(row) > len(columns) else "fewer"
                raise DataError(f"{path}:{place}: {many} values than columns")
            if row:
                places.append(place)
                rows.append(row)
            if len(rows) == ROWS:
                yield TableRows(places, dict(zip(columns, map(list, zip(*rows)))))
                places, rows = [], []
        if rows:
            yield TableRows(places, dict(zip(columns, map(list, zip(*rows)))))


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not any(columns):
        raise DataError(f"{path} has no line of column names")
    if twice := repeated_words(columns):
        raise DataError(f"{path} has the column {twice[0]!r} more than once")


def _of_json_lines(path: Path) -> Iterator[TableRows]:
    with path.open(encoding="utf-8") as text:
        numbered = ((place, line) for place, line in enumerate(text, 1) if line.strip())
        while block := list(islice(numbered, ROWS)):
            objects = []
            for place, line in block:
                try:
                    objects.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise DataError(f"{path}:{place}: this is no JSON: {error.msg}") from None
            places = [place for place, _ in block]
            yield TableRows(places, _of_objects(path, objects, places))


def _of_json(path: Path) -> Iterator[TableRows]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(values, Mapping) and {"columns", "data"} <= values.keys():
        values = _of_table(path, values["columns"], values["data"])
    if isinstance(values, Mapping):
        lists = {str(name): value for name, value in values.items() if isinstance(value, list)}
        if not lists:
            raise DataError(f"{path}: no key of it holds a list with a value for each image")
        yield _whole(path, lists)
        return
    if not isinstance(values, list) or not values:
        raise DataError(f"{path} holds no list of predictions")
    places = range(1, len(values) + 1)
    yield TableRows(places, _of_objects(path, values, places))


def _of_table(path: Path, columns: Any, rows: Any) -> list[dict[str, Any]]:
    """Objects of a table that has its column names apart. Raises DataError for another form."""
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise DataError(f"{path}: expected lists in `columns` and `data`")
    names = [str(name) for name in columns]
    _check_columns(path, names)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(names):
            raise DataError(f"{path}: row {number} of `data` does not have a value for each of its columns")
    return [dict(zip(names, row)) for row in rows]


def _of_objects(path: Path, values: Sequence[Any], places: Sequence[int]) -> dict[str, list[Any]]:
    """Columns of objects, or of lists of {label, score}, which pipelines of transformers return."""
    if all(isinstance(row, list) for row in values):
        named = [_by_label(path, number, row) for number, row in zip(places, values)]
        ranked = [sorted(each, key=lambda name: -float(each[name])) for each in named]
        return by_class(ranked, [[each[name] for name in row] for each, row in zip(named, ranked)])
    rows: list[dict[str, Any]] = []
    for number, row in zip(places, values):
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
            yield TableRows(range(first, first + batch.num_rows), columns)
            first += batch.num_rows
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}") from None


def _of_npz(path: Path) -> Iterator[TableRows]:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is no npz file: it is not a zip archive")
    with np.load(path, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    yield _whole(path, {name: values for name, values in columns.items() if values.ndim in (1, 2)})


def _of_array(path: Path, values: NDArray[Any]) -> dict[str, Any]:
    """The column of an array: scores (N, K), or answers (N,)."""
    if values.ndim not in (1, 2):
        raise DataError(
            f"{path}: expected scores (N, K) or answers (N,), got an array of shape {values.shape}"
        )
    return {"scores" if values.ndim == 2 else "prediction": values}


def _of_torch(path: Path) -> dict[str, Any]:
    """The columns of tensors that torch saved: by name, in batches, or as (scores, labels)."""
    import torch

    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} holds more than tensors, and opening it could run any code; save a dictionary of "
            "tensors (torch.save({'scores': scores, 'labels': labels}, path))"
        ) from None
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read as a file of torch.save: {first_line(error)}") from None
    parts = values if isinstance(values, list) else [values]
    tables = [_named_tensors(path, part) for part in parts]
    if not tables or any(table.keys() != tables[0].keys() for table in tables):
        raise DataError(f"{path}: its batches hold different things")
    columns: dict[str, Any] = {}
    for name in tables[0]:
        pieces = [table[name] for table in tables]
        if isinstance(pieces[0], list):
            columns[name] = [*chain(*pieces)]
        else:
            whole = np.concatenate(pieces)
            columns |= {name: whole} if name else _of_array(path, whole)
    return columns


def _named_tensors(path: Path, value: Any) -> dict[str, Any]:
    """Arrays and lists by name of what a file holds: a tensor is named "", and a pair scores and labels."""
    import torch

    if isinstance(value, tuple) and len(value) == 2:
        value = dict(zip(("scores", "labels"), value))
    found = value if isinstance(value, Mapping) else {"": value}
    arrays = {
        str(name): each.float().numpy() if each.is_floating_point() else each.numpy()
        for name, each in found.items()
        if isinstance(each, torch.Tensor) and each.ndim in (1, 2)
    }
    lists = {str(name): list(each) for name, each in found.items() if isinstance(each, list | tuple)}
    if not arrays and not lists:
        raise DataError(f"{path} holds no tensors with a row for each image")
    return {**arrays, **lists}


def _of_texts(folder: Path) -> Iterator[TableRows]:
    """The text files of a folder, one an image: ranked classes with their probabilities."""
    names, classes, scores = [], [], []
    for file in sorted(folder.glob("*.txt")):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [RANKED_LINE.fullmatch(line.strip()) for line in lines]
        if not lines or None in found:
            raise DataError(f"{file}: expected a probability and a class in each line (0.93 cat)")
        names.append(file.stem)
        classes.append([match[2] for match in found if match])
        scores.append([float(match[1]) for match in found if match])
    yield TableRows(range(1, len(names) + 1), {"file": names, **by_class(classes, scores)})


def _whole(path: Path, columns: Mapping[str, Any]) -> TableRows:
    """All rows of a file, from its columns. Raises DataError for columns of different lengths."""
    lengths = {name: len(values) for name, values in columns.items()}
    if not lengths:
        raise DataError(f"{path} has no array with a row for each image")
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise DataError(f"{path}: its columns have different lengths ({said})")
    return TableRows(range(1, next(iter(lengths.values())) + 1), columns)
