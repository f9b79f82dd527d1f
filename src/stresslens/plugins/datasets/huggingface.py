from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.image_files import Fit
from stresslens.core.spelling import closest
from stresslens.core.types import Count, NonNegative, Positive, Seed
from stresslens.plugins.datasets._arrow_tables import (
    Columns,
    SplitTable,
    label_column,
    listing_of,
    picture_column,
    tables_at,
    tables_of_hub,
)
from stresslens.plugins.datasets._class_folders import PARTS, sources_of_parts
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._listed_images import Colours, Decoding, Unreadable, data_of_files


# long: options are spelled out, one a line, and the docstring explains each
def huggingface(
    *,
    path: str,
    image: str | None = None,
    label: str | None = None,
    split: str | dict[str, str] | None = None,
    config: str | None = None,
    group: str | None = None,
    classes: list[str] | None = None,
    names: dict[str, str] | list[str] | None = None,
    size: Count | tuple[Count, Count] | None = None,
    fit: Fit = "crop",
    colours: Colours = "auto",
    test: NonNegative | None = None,
    validation: NonNegative | None = None,
    unreadable: Unreadable = "error",
    cache_gb: Positive = 16.0,
    subset: Count | None = None,
    seed: Seed = 42,
) -> Data:
    """A data set of Hugging Face: parquet files, a folder that `save_to_disk` wrote, or a name of the
    hub.

    `path` is a parquet file, a folder with parquet or Arrow files in it, or else a name of the hub
    (owner/name), with its configuration `config`. Files need pyarrow (the extra `parquet`), the hub
    needs the package datasets (the extra `huggingface`) and a network, or its own cache.

    `image` and `label` are columns; they may be left out if only one column can be meant. Pictures
    are bytes, or {bytes, path} with a path inside the folder. Labels are words, or whole numbers with
    the names of the classes in the file's metadata.

    `split` says which splits are the parts: {train: train, test: validation}, or the name of the one
    split from which test and validation are drawn. By default splits called train, validation and
    test (also val, dev, …) are the parts. A split without labels is left out.

    `group` is a column. The other options are those of the dataset `folder`. Raises ConfigError for
    options that do not fit the data, and DataError for its mistakes.
    """
    place = Path(path).expanduser()
    local = place.exists()
    found = (
        tables_at(place)
        if local or place.suffix in (".parquet", ".arrow", ".py")
        else tables_of_hub(path, config)
    )
    name = place.resolve().name if local else path
    tables, notes = _parts(found, split, name)
    learned = tables.get("train") or next(iter(tables.values()))
    columns = Columns(picture_column(learned, image, name), label_column(learned, label, name), group)
    if group is not None and group not in learned.schema.names:
        raise ConfigError(f"group: {name} has no column {group!r}; {closest(group, learned.schema.names)}")
    root = (place if place.is_dir() else place.parent) if local else None
    listed, every = listing_of(tables, columns, root, name)
    return data_of_files(
        replace(listed, notes=[*notes, *listed.notes]),
        name,
        Decoding(size, fit, colours, unreadable, cache_gb),
        Division(test, validation, subset, seed),
        every=every,
        classes=classes,
        names=names,
        group=group,
    )


def _parts(
    found: Sequence[SplitTable], wanted: str | dict[str, str] | None, name: str
) -> tuple[dict[str | None, SplitTable], list[str]]:
    """The split of each part, and a note on splits that are no part. Raises ConfigError."""
    by_name = {table.split: table for table in found}

    def named(split: str) -> SplitTable:
        if split not in by_name:
            there = [each for each in by_name if each]
            if not there:
                raise ConfigError(f"split: {name} does not say that it has splits; leave `split` out")
            raise ConfigError(f"split: {name} has no split {split!r}; {closest(split, there)}")
        return by_name[split]

    if isinstance(wanted, str):
        return {None: named(wanted)}, []
    if wanted is not None:
        return {part: named(split) for part, split in sources_of_parts(wanted, "split").items()}, []
    parts: dict[str | None, SplitTable] = {}
    for split, table in by_name.items():
        if split.lower() in PARTS:
            parts.setdefault(PARTS[split.lower()], table)
    if not parts:
        if len(found) > 1:
            raise ConfigError(
                f"{name} has the splits {', '.join(by_name)}; say which are the parts: "
                "`split: {train: NAME, test: NAME}`"
            )
        return {None: found[0]}, []
    left = [split for split, table in by_name.items() if table not in parts.values()]
    return parts, [f"splits that were left out: {', '.join(left)}"] if left else []
