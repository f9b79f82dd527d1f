"""Tables of Hugging Face with a column of pictures: parquet, saved Arrow files, and data sets of the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresslens.core.errors import ConfigError, DataError, first_line, naming
from stresslens.core.extras import extra
from stresslens.core.image_cache import Files
from stresslens.core.image_files import Item, Unreadable, digest
from stresslens.core.spelling import closest
from stresslens.core.text import printable, repeated_words
from stresslens.plugins.datasets._array_files import LABELS, PICTURES
from stresslens.plugins.datasets._listing import Listing, size_and_time
from stresslens.plugins.datasets._shard_names import split_of_shard

AT_ONCE, LABELS_AT_ONCE = 64, 65_536
"""Rows that are read at once: pictures may be large, labels are not."""


@dataclass(frozen=True)
class SplitTable:
    """One split of a data set: its columns with their types, and its rows."""

    split: str
    schema: Any
    rows: Callable[[Sequence[str], int], Iterator[dict[str, Any]]]
    """Every row, with the columns that are asked for, so many rows read at once."""
    total: int
    """The size of its files, in bytes."""
    stamp: str
    """What changes if its files change."""

    @property
    def features(self) -> Mapping[str, Any]:
        """What Hugging Face says of each column; empty if the files were written by others."""
        try:
            meta = json.loads((self.schema.metadata or {})[b"huggingface"])
            found = meta["info"]["features"]
            return found if isinstance(found, dict) else {}
        except (KeyError, TypeError, ValueError):
            return {}

    def class_names(self, column: str) -> list[str] | None:
        """The names of the classes 0, 1, … of a column of labels, if the files have them. Raises DataError
        where two classes have one name."""
        feature = self.features.get(column)
        names = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(names, dict):  # of older files: {"0": name, …}
            names = [names[key] for key in map(str, range(len(names))) if key in names]
        if not isinstance(names, list):
            return None
        found = [printable(str(name)) for name in names]
        if twice := repeated_words(found):
            raise DataError(
                f"the metadata call several classes of {column} {twice[0]!r}; give each class its own name"
            )
        return found


# --- where the tables are -----------------------------------------------------------------------------------


def tables_at(path: Path) -> list[SplitTable]:
    """The splits in a parquet file, in a folder of parquet files, or in one that `save_to_disk` wrote.

    Raises DataError where there are none, and for damaged files.
    """
    with extra("parquet", f"{path}, a parquet or Arrow file,", raises=DataError):
        import pyarrow
    if path.suffix == ".py":
        raise DataError(
            f"{path} is a script, which would run code of others; convert the data set to parquet "
            "(datasets.load_dataset(…)['train'].to_parquet(FILE)) and give the folder of these files"
        )
    if not path.exists():
        raise DataError(f"there is no {path} (working folder: {Path.cwd()})")
    files = (
        [path] if path.is_file() else sorted(path.rglob("*.parquet")) or sorted(path.rglob("data-*.arrow"))
    )
    if not files:
        raise DataError(
            f"{path} holds no parquet file, and nothing that `save_to_disk` wrote; for a folder of image "
            f"files: {{folder: {{path: {path}}}}}"
        )
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of_shard(file, path), []).append(file)
    try:
        return [_table(split, shards) for split, shards in by_split.items()]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet or Arrow ({first_line(error)})") from error


def _table(split: str, shards: Sequence[Path]) -> SplitTable:
    import pyarrow
    import pyarrow.parquet

    parquet = shards[0].suffix != ".arrow"

    def rows(columns: Sequence[str], at_once: int) -> Iterator[dict[str, Any]]:
        for shard in shards:
            try:
                if parquet:
                    with pyarrow.parquet.ParquetFile(shard) as file:
                        _check_columns(shard, columns, file.schema_arrow.names)
                        for batch in file.iter_batches(at_once, columns=list(columns)):
                            yield from batch.to_pylist()
                else:
                    with pyarrow.memory_map(str(shard)) as memory:
                        stream = pyarrow.ipc.open_stream(memory)
                        _check_columns(shard, columns, stream.schema.names)
                        for batch in stream:
                            for start in range(0, len(batch), at_once):
                                yield from batch.select(list(columns)).slice(start, at_once).to_pylist()
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(f"{shard} is damaged, or unlike the others ({first_line(error)})") from error

    def schema(shard: Path) -> Any:
        if parquet:
            return pyarrow.parquet.read_schema(shard)
        with pyarrow.memory_map(str(shard)) as memory:
            return pyarrow.ipc.open_stream(memory).schema

    facts = [size_and_time(shard) for shard in shards]
    stamp = repr([(str(shard.resolve()), *of_shard) for shard, of_shard in zip(shards, facts)])
    return SplitTable(split, schema(shards[0]), rows, sum(size for size, _ in facts), stamp)


def _check_columns(where: object, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raises DataError for a column that is not there: splits and shards may be unlike."""
    for name in wanted:
        if name not in names:
            raise DataError(
                f"{where} has no column {name!r}, which other files have; {closest(name, list(names))}"
            )


def tables_of_hub(name: str, config: str | None) -> list[SplitTable]:
    """The splits of a data set of the hub, which the package `datasets` downloads.

    Raises DataError without the package, and where it cannot be downloaded.
    """
    remedy = (
        f"or download its files elsewhere (hf download {name} --repo-type dataset --local-dir FOLDER) "
        "and give `path: FOLDER`"
    )
    try:
        with extra("huggingface", f"{name}, which is no path here but may be a data set of the hub,"):
            import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ConfigError as error:
        raise DataError(f"{error}; {remedy}") from None
    try:
        found = datasets.load_dataset(name, config)
    except Exception as error:  # a download may fail in many ways
        said = " ".join(str(error).split())
        raise DataError(f"{name} is no path here, and could not be downloaded ({said}); {remedy}") from error
    return [_hub_table(str(split), table) for split, table in found.items()]


def _hub_table(split: str, table: Any) -> SplitTable:
    def rows(columns: Sequence[str], at_once: int) -> Iterator[dict[str, Any]]:
        for batch in table.select_columns(list(columns)).with_format("arrow").iter(at_once):
            yield from batch.to_pylist()

    return SplitTable(split, table.features.arrow_schema, rows, len(table), str(table._fingerprint))


# --- which columns are meant --------------------------------------------------------------------------------


def picture_column(table: SplitTable, wanted: str | None, where: str) -> str:
    """The column of pictures: the one that is wanted, or the only one that may be. Raises ConfigError or
    DataError."""

    def holds_pictures(name: str) -> bool:
        kind = str(table.schema.field(name).type)
        feature = table.features.get(name)
        if isinstance(feature, dict) and feature.get("_type") == "Image":
            return True
        return re.match(r"struct<.*bytes: (large_)?binary", kind) is not None or (
            kind in ("binary", "large_binary") and (name.lower() in PICTURES or name == wanted)
        )

    return _column(table, wanted, holds_pictures, "image", "pictures (bytes, or {bytes, path})", where)


def label_column(table: SplitTable, wanted: str | None, where: str) -> str:
    """The column of labels, as `picture_column`."""

    def holds_labels(name: str) -> bool:
        kind = str(table.schema.field(name).type)
        usable = re.match(r"u?int\d+$|(large_)?string$|bool$|dictionary", kind) is not None
        feature = table.features.get(name)
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            return usable
        return usable and (name.lower() in LABELS or name == wanted)

    return _column(table, wanted, holds_labels, "label", "labels (whole numbers or words)", where)


def _column(
    table: SplitTable,
    wanted: str | None,
    fits: Callable[[str], bool],
    option: str,
    what: str,
    where: str,
) -> str:
    names: list[str] = list(table.schema.names)
    if twice := repeated_words(names):
        raise DataError(
            f"{where} has the column {twice[0]!r} more than once; write it with a name of its own"
        )
    columns = ", ".join(f"{name} ({str(table.schema.field(name).type)[:40]})" for name in names)
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"{option}: {where} has no column {wanted!r}; {closest(wanted, names)}")
        if not fits(wanted):
            raise DataError(f"{where}: the column {wanted!r} holds no {what}; columns: {columns}")
        return wanted
    found = [name for name in names if fits(name)]
    if len(found) != 1:
        said = f"several columns may hold {what}: {', '.join(found)}" if found else f"no column holds {what}"
        raise DataError(f"{where}: {said}; say which: `{option}: NAME` (columns: {columns})")
    return found[0]


# --- rows as files ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """The columns of pictures, labels and, if wanted, groups."""

    image: str
    label: str
    group: str | None = None


def listing_of(
    tables: Mapping[str | None, SplitTable], columns: Columns, root: Path | None, where: str
) -> tuple[Listing, list[str]]:
    """The pictures of each part as files that are called after their part and row, and all class names.

    Rows of a split without any label (-1 everywhere) are left out, with a note. Raises DataError for
    missing labels.
    """
    labels: list[str | int] = []
    parts: list[str | None] = []
    groups: list[str] = []
    sources: list[SplitTable] = []
    names, notes = list[str](), list[str]()
    with naming(where):
        of_tables = {part: table.class_names(columns.label) for part, table in tables.items()}
    shared = next(filter(None, of_tables.values()), None)
    every = dict.fromkeys(name for of_table in of_tables.values() for name in of_table or ())
    for part, table in tables.items():
        wanted = [columns.label, *([columns.group] if columns.group else [])]
        _check_columns(f"{where}: the split {table.split}", [columns.image, *wanted], table.schema.names)
        rows = list(table.rows(wanted, LABELS_AT_ONCE))
        of_part = _labels(
            [row[columns.label] for row in rows], table, columns.label, of_tables[part] or shared, where
        )
        if of_part is None:
            notes.append(f"the split {table.split} has no labels (-1) and was left out")
            continue
        sources.append(table)
        labels += of_part
        parts += [part] * len(rows)
        names += [f"{part or 'row'}/{k:08d}" for k in range(len(rows))]
        groups += [str(row[columns.group]) for row in rows] if columns.group else []
    if not names:
        raise DataError(f"{where} holds no row with a picture and a label")

    def read() -> Iterator[Item]:
        position = 0
        for table in sources:
            for row in table.rows([columns.image], AT_ONCE):
                yield position, _content(row[columns.image], root)
                position += 1

    stamp = digest(repr([(table.split, table.stamp, columns) for table in sources]).encode()).hex()
    files = Files(names, sum(table.total for table in sources), stamp, read)
    of_columns = {columns.group: groups} if columns.group else {}
    numbers = sorted({label for label in labels if isinstance(label, int)})
    if numbers and numbers[0] < 0 and numbers != [-1, 1]:
        raise DataError(
            f"{where}: the {columns.label} is {numbers[0]} in some rows; leave rows without a label out, or "
            "write the classes as words"
        )
    words = sorted({label for label in labels if isinstance(label, str)})
    listed = Listing(files, [str(label) for label in labels], parts, of_columns, notes)
    return listed, list(every or dict.fromkeys(str(label) for label in (*numbers, *words)))


def _labels(
    values: Sequence[Any], table: SplitTable, column: str, names: Sequence[str] | None, where: str
) -> Sequence[str | int] | None:
    """The classes of all rows of a split, numbers without a name as they are; None if no row has a label."""
    of_split = f"{where}: the split {table.split}" if table.split else where
    if values and all(value in (-1, None) for value in values):
        return None
    for k, value in enumerate(values):
        if value is None or value == "" or (value == -1 and names is not None):
            said = " (-1)" if value == -1 else ""
            raise DataError(
                f"{of_split} has no {column} in row {k}{said}; leave the row out, or give its class"
            )
        if names is not None and not isinstance(value, str) and value not in range(len(names)):
            raise DataError(
                f"{of_split} has the {column} {value} in row {k}, and there are {len(names)} classes"
            )
    if names is None or all(isinstance(value, str) for value in values):
        return [printable(value) if isinstance(value, str) else value for value in values]
    return [names[value] for value in values]


def _content(value: Any, root: Path | None) -> bytes | str | Unreadable:
    """The bytes of a picture: its own, or those of the file that it names below `root`."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, dict):
        return Unreadable("the row has no picture")
    if value.get("bytes"):
        return bytes(value["bytes"])
    name = value.get("path")
    if not name:
        return Unreadable("the row has no picture")
    if root is None:
        return Unreadable(f"the picture is not in the table, but in {name}")
    file = (root / name).resolve()
    if not file.is_relative_to(root.resolve()):
        return Unreadable(f"{name} lies outside of the folder of the data set")
    return str(file)
