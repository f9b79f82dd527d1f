from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stresslens.core.bit_depth import WHITE
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError, naming
from stresslens.core.image_cache import Order, Store, decoded
from stresslens.core.image_files import Fit
from stresslens.core.image_formats import SUFFIXES
from stresslens.core.spelling import closest
from stresslens.core.splits import divided, drawn
from stresslens.core.types import Count, Finding, NonNegative, Positive, Seed
from stresslens.plugins.datasets._listing import Listing, listing
from stresslens.plugins.datasets._pixel_format import settled_by_training


# long: options are spelled out, one a line, and the docstring explains each
def folder(
    *,
    path: str,
    classes: list[str] | None = None,
    names: dict[str, str] | list[str] | None = None,
    size: Count | tuple[Count, Count] | None = None,
    fit: Fit = "crop",
    colours: Literal["auto", "grey", "rgb"] = "auto",
    test: NonNegative | None = None,
    validation: NonNegative | None = None,
    group: str | None = None,
    slices: list[str] | None = None,
    unreadable: Literal["error", "skip"] = "error",
    cache_gb: Positive = 16.0,
    white: Literal["auto"] | Count = "auto",
    subset: Count | None = None,
    seed: Seed = 42,
    encoding: str | None = None,
) -> Data:
    """Your own images: a directory or archive with a folder for each class, or a CSV or parquet
    table.

    `path` is a directory, a zip or tar archive, or a table of path, label and more; it is relative
    to the working folder.

    Splits: folders train, validation and test (or the column `split`) are the parts; train must be
    one of them. A missing validation part is drawn from train, `validation` of its images. A missing
    test part is not drawn: there is no test split. Without any part, `test` and `validation` of all
    images are drawn. Both are counts or shares, by default a fifth; an option for a part that is there
    is refused. An archive with one folder around everything, whatever its name, has no parts in it
    but those inside. Images of one `group` stay in one part. For a
    table, `group` is a column, by default "group"; for folders it is a regular expression whose
    first group in parentheses matches the group in the file's path. `subset` keeps that many
    training images, class-balanced. `classes` keeps only images of these classes; folders called
    train or test are classes where it names them. `names` gives classes other names, for models that
    use them in captions: {automobile: car}, or a name for each class, in the order of `classes` (or
    of the alphabet). `slices` names the table's columns that scores
    are split by, by default all. `encoding` is that of a table, by default UTF-8, and of names in a
    zip that does not say it (cp1252, cp932).

    Decoding: every file is decoded once into a cache, which is used as long as names, sizes and
    times of the files are the same. `size` is in pixels, or [height, width]; it may be left out if
    all images have the same size. `fit` is `crop` (the centre), `pad` (with black) or `stretch`. If
    the pixels take more than `cache_gb` gigabytes, the files are kept and decoded for each batch.
    `colours: auto` means three channels if a training image has colours; other images follow.
    `white` is the value of white in files of 16 bits; `auto` takes that of 8, 10, 12, 14 or 16 bits
    that holds the largest value of the training images. Pixels are kept with 8 bits.
    Unreadable files are an error that names them all; with `unreadable: skip` they are left out and
    listed. Raises ConfigError for options that do not fit the data, and DataError for its mistakes.
    """
    source = Path(path).expanduser()
    listed = listing(source, classes, encoding)
    name = source.resolve().name
    wanted = (size, size) if isinstance(size, int) else size
    channels = {"auto": None, "grey": 1, "rgb": 3}[colours]
    order = Order(
        listed.files, path, wanted, fit, channels, cache_gb * 1e9, WHITE if white == "auto" else white
    )
    store = decoded(order)
    if store.unreadable and unreadable == "error":
        reasons = [f"{listed.files.names[position]}: {reason}" for position, reason in store.unreadable]
        raise DataError(
            f"{name}: {len(reasons)} of {len(listed.files.names)} files cannot be read as images\n"
            + "\n".join(reasons)
            + "\nRepair or remove them, or leave them out with `unreadable: skip`"
        )
    labels = [listed.labels[position] for position in store.positions]
    kept = _chosen_classes(classes, sorted(set(listed.labels)), name)
    titles = _renamed(kept, names, name)
    number = {label: k for k, label in enumerate(kept)}
    columns = _columns(listed, store, group, slices, name)
    parts = [listed.parts[position] for position in store.positions]

    def divided_into_parts(store: Store) -> Data:
        labelled = torch.tensor([number.get(label, -1) for label in labels])
        whole, parts_of_whole = Split(store.images, labelled, columns=columns), parts
        if classes is not None:
            rows = (whole.labels >= 0).nonzero().flatten()
            whole, parts_of_whole = whole.select(rows), [parts[row] for row in rows.tolist()]
        with naming(name):
            return _divided(whole, parts_of_whole, titles, name, test, validation, subset, seed)

    data = divided_into_parts(store)
    settled, notes = settled_by_training(order, store, data, auto_white=white == "auto")
    if settled != order:
        data = divided_into_parts(_of_same_files(decoded(settled), store, name))
    return replace(
        data,
        notes=(*listed.notes, *data.notes, *notes),
        findings=tuple(_findings(listed, store)),
        fit=fit,
        white=settled.white,
        slices=tuple(slices or ()),
        parts=_parts_in_words(listed, data),
    )


def _of_same_files(anew: Store, store: Store, name: str) -> Store:
    """The images of `store` as they were decoded anew. Raises DataError where one is not readable so."""
    rows = np.flatnonzero(np.isin(anew.positions, store.positions))
    if len(rows) < len(store.positions):
        reasons = "; ".join(reason for _, reason in anew.unreadable)
        raise DataError(f"{name}: some files cannot be decoded with another value of white ({reasons})")
    return replace(anew, images=anew.images.select(torch.from_numpy(rows)), positions=store.positions)


def _chosen_classes(chosen: list[str] | None, present: list[str], name: str) -> list[str]:
    if chosen is None:
        return present
    for label in chosen:
        if label not in present:
            raise ConfigError(f"classes: {name} has no class {label!r}; {closest(label, present)}")
    if len(set(chosen)) < max(2, len(chosen)):
        raise ConfigError(f"classes: expected at least two classes, each once; got {', '.join(chosen)}")
    return chosen


def _renamed(classes: list[str], names: dict[str, str] | list[str] | None, folder: str) -> list[str]:
    """The names of the classes, those in `names` in place of the folders'."""
    if isinstance(names, dict):
        for label in names:
            if label not in classes:
                raise ConfigError(f"names: {folder} has no class {label!r}; {closest(label, classes)}")
    elif names is not None and len(names) != len(classes):
        raise ConfigError(
            f"names: {folder} has {len(classes)} classes ({', '.join(classes)}), and {len(names)} names "
            "are given; give one for each, or only some as {class: name}"
        )
    by_class = names if isinstance(names, dict) else dict(zip(classes, names or classes))
    titles = [by_class.get(label, label) for label in classes]
    double = sorted({title for title in titles if titles.count(title) > 1})
    if double:
        raise ConfigError(f"names: several classes of {folder} would be called {', '.join(double)}")
    return titles


def _columns(
    listed: Listing, store: Store, group: str | None, slices: list[str] | None, name: str
) -> dict[str, NDArray[Any]]:
    """The columns of the readable images."""

    def readable(values: Sequence[str]) -> NDArray[Any]:
        return np.array([values[position] for position in store.positions], dtype=object)

    extra = [column for column in listed.columns if column not in ("group", group)]
    for column in [*(slices or []), *([group] if group and listed.columns else [])]:
        if column not in listed.columns:
            raise ConfigError(f"{name} has no column {column!r}; {closest(column, list(listed.columns))}")
    columns = {column: readable(listed.columns[column]) for column in (extra if slices is None else slices)}
    columns["file"] = readable(listed.files.names)
    columns.update({fact: store.facts[fact] for fact in ("width", "height", "bytes")})
    if listed.columns and (group or "group" in listed.columns):
        columns["group"] = readable(listed.columns[group or "group"])
    elif group:
        columns["group"] = np.array([_group_of(str(file), group) for file in columns["file"]], dtype=object)
    return columns


def _group_of(file: str, pattern: str) -> str:
    try:
        match = re.search(pattern, file)
    except re.error as error:
        raise ConfigError(f"group: {pattern!r} is not a regular expression: {error}") from None
    if match is None or not match.groups():
        what = (
            f"does not match {file}"
            if match is None
            else "has no parentheses around the part that names the group"
        )
        raise ConfigError(f"group: {pattern!r} {what}")
    return str(match.group(1))


def _divided(
    whole: Split,
    parts: Sequence[str | None],
    classes: Sequence[str],
    name: str,
    test: float | None,
    validation: float | None,
    subset: int | None,
    seed: int,
) -> Data:
    """The data set with the parts that the files give; other parts are drawn."""
    rows = {
        part: torch.tensor([k for k, of_image in enumerate(parts) if of_image == part], dtype=torch.int64)
        for part in set(parts)
    }
    share = 0.2 if validation is None else validation
    if None in rows:
        return drawn(
            whole,
            classes,
            name,
            test=0.2 if test is None else test,
            validation=share,
            subset=subset,
            seed=seed,
        )
    if "train" not in rows:
        found = ", ".join(sorted(filter(None, rows)))
        raise DataError(f"{name} has the parts {found}, and no train part to learn from")
    for part, option in (("test", test), ("validation", validation)):
        if option is not None and part in rows:
            raise ConfigError(
                f"{name} already has a {part} part ({len(rows[part])} images); leave the option `{part}` out"
            )
    if test:
        raise ConfigError(
            f"{name} has its own parts, but no test part; add a test folder (or rows), or leave `test` out"
        )
    given = {str(part): whole.select(positions) for part, positions in rows.items()}
    for part, split in given.items():
        unknown = set(split.labels.tolist()) - set(given["train"].labels.tolist())
        if unknown:
            raise DataError(
                f"{name}: the {part} part has images of {classes[min(unknown)]!r}, "
                "and the train part has none to learn from"
            )
    count = 0 if "validation" in given else share
    data = divided(
        given["train"], given.get("test"), classes, name, validation=count, subset=subset, seed=seed
    )
    return replace(data, validation=given["validation"]) if "validation" in given else data


def _parts_in_words(listed: Listing, data: Data) -> str:
    """Which parts the folders or the table gave, and which were drawn."""
    given = [part for part in data.splits if part in listed.parts]
    drawn = [part for part in data.splits if part not in given and part != "train"]
    taken = f"{', '.join(given)} as given" if given else ""
    rest = f"{' and '.join(drawn)} drawn from {'train' if given else 'all images'}" if drawn else ""
    missing = "" if "test" in data.splits else "no test part"
    return "; ".join(filter(None, [taken, rest, missing]))


def _findings(listed: Listing, store: Store) -> list[Finding]:
    """Findings from reading the files: files left out, and names that do not match the format."""
    names, n = listed.files.names, len(listed.files.names)
    findings = list(listed.findings)
    if store.unreadable:
        left_out = tuple(f"{names[position]}: {reason}" for position, reason in store.unreadable)
        severity: Literal["minor", "serious"] = "serious" if len(left_out) > n / 20 else "minor"
        evidence = f"{len(left_out)} of {n} files cannot be decoded completely and were left out"
        findings.append(
            Finding("unreadable files", "sign", severity, evidence, n, "repair or remove them", left_out)
        )
    odd = tuple(
        f"{names[position]}: {kind}"
        for position, kind in zip(store.positions.tolist(), store.facts["format"].tolist())
        if kind not in SUFFIXES.get(os.path.splitext(names[position])[1].lower(), (kind,))
    )
    if odd:
        evidence = (
            f"{len(odd)} files have another format than their names say; they were read by their content"
        )
        findings.append(
            Finding(
                "format and name",
                "sign",
                "minor",
                evidence,
                n,
                "rename them; other tools may refuse them",
                odd,
            )
        )
    return findings
