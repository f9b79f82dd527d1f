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

from stresslens.core.data import Data, Split, cache_root
from stresslens.core.errors import ConfigError, DataError, closest
from stresslens.core.image_cache import Order, Store, decoded
from stresslens.core.image_files import SUFFIXES, Fit
from stresslens.core.splits import divided, drawn
from stresslens.core.types import Count, Finding, NonNegative, Positive, Seed
from stresslens.plugins.datasets._listing import Listing, listing


def folder(
    *,
    path: str,
    classes: list[str] | None = None,
    size: Count | tuple[Count, Count] | None = None,
    fit: Fit = "crop",
    colours: Literal["auto", "grey", "rgb"] = "auto",
    test: NonNegative | None = None,
    validation: NonNegative | None = None,
    group: str | None = None,
    slices: list[str] | None = None,
    unreadable: Literal["error", "skip"] = "error",
    cache_gb: Positive = 16.0,
    subset: Count | None = None,
    seed: Seed = 42,
) -> Data:
    """Your own images: a directory, zip or tar with a folder per class, or a CSV or parquet of
    path, label and more.

    `path` starts from the working folder. Folders train, validation and test (or the column
    `split`) are the parts; without a test part a fifth of the images is drawn for `test`, without a
    validation part a fifth for `validation` (counts or shares). Images of one `group` (the table's
    column, by default "group"; for folders a regular expression whose first parentheses match it in
    the file's path) stay on one side. `slices` names the table's columns to score by, by default
    all. Every file is decoded whole, once, into a cache that serves as long as names, sizes and
    times of the files are the same: `size` (pixels, or [height, width]; may be left out where all
    pictures have one) and `fit`: `crop` (the middle), `pad` (black) or `stretch`; beyond `cache_gb`
    gigabytes of pixels the files are kept and decoded for each batch. Files that are no whole
    picture are an error that names them all, or left out and listed with `unreadable: skip`.
    `classes` keeps the images of these alone, `subset` that many training images, class-balanced.
    """
    source = Path(path).expanduser()
    listed = listing(source)
    name = source.resolve().name
    wanted = (size, size) if isinstance(size, int) else size
    channels = {"auto": None, "grey": 1, "rgb": 3}[colours]
    store = decoded(
        Order(listed.files, name, wanted, fit, channels, cache_gb * 1e9), cache_root() / "pictures"
    )
    if store.unreadable and unreadable == "error":
        each = "\n".join(f"{listed.files.names[position]}: {reason}" for position, reason in store.unreadable)
        raise DataError(
            f"{name}: {len(store.unreadable)} of {len(listed.files.names)} files cannot be read as pictures\n{each}\n"
            "Repair or remove them, or leave them out with `unreadable: skip`"
        )
    labels = [listed.labels[position] for position in store.positions]
    kept = _kept(classes, sorted(set(listed.labels)), name)
    number = {label: k for k, label in enumerate(kept)}
    columns = _columns(listed, store, group, slices, name)
    whole = Split(store.images, torch.tensor([number.get(label, -1) for label in labels]), columns=columns)
    parts = [listed.parts[position] for position in store.positions]
    if classes is not None:
        rows = (whole.labels >= 0).nonzero().flatten()
        whole, parts = whole.select(rows), [parts[row] for row in rows.tolist()]
    data = _divided(whole, parts, kept, name, test, validation, subset, seed)
    return replace(
        data,
        notes=(*listed.notes, *data.notes),
        findings=tuple(_findings(listed, store)),
        fit=fit,
        slices=tuple(slices or ()),
    )


def _kept(asked: list[str] | None, there: list[str], name: str) -> list[str]:
    if asked is None:
        return there
    for label in asked:
        if label not in there:
            raise ConfigError(f"classes: {name} has no class {label!r}; {closest(label, there)}")
    if len(set(asked)) < max(2, len(asked)):
        raise ConfigError(f"classes: expected at least two classes, each once; got {', '.join(asked)}")
    return asked


def _columns(
    listed: Listing, store: Store, group: str | None, slices: list[str] | None, name: str
) -> dict[str, NDArray[Any]]:
    """Facts about each image that could be read."""

    def readable(values: Sequence[str]) -> NDArray[Any]:
        return np.array([values[position] for position in store.positions], dtype=object)

    extra = [column for column in listed.columns if column not in ("group", group)]
    for asked in [*(slices or []), *([group] if group and listed.columns else [])]:
        if asked not in listed.columns:
            raise ConfigError(f"{name} has no column {asked!r}; {closest(asked, list(listed.columns))}")
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
    """The parts as the files give them; what they do not give is drawn."""
    rows = {
        part: torch.tensor([k for k, own in enumerate(parts) if own == part], dtype=torch.int64)
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
    for part, option in (("test", test), ("validation", validation)):
        if option is not None and part in rows:
            raise ConfigError(
                f"{name} has a {part} part of its own ({len(rows[part])} images); leave the option `{part}` out"
            )
    if test:
        raise ConfigError(
            f"{name} has parts of its own, and no test among them; add a test folder (or rows), or take `test` out"
        )
    given = {str(part): whole.select(places) for part, places in rows.items()}
    for part, split in given.items():
        unknown = set(split.labels.tolist()) - set(given["train"].labels.tolist())
        if unknown:
            raise DataError(
                f"{name}: the {part} part has images of {classes[min(unknown)]!r}, and the train part has none to learn from"
            )
    count = 0 if "validation" in given else share
    data = divided(
        given["train"], given.get("test"), classes, name, validation=count, subset=subset, seed=seed
    )
    return replace(data, validation=given["validation"]) if "validation" in given else data


def _findings(listed: Listing, store: Store) -> list[Finding]:
    """What was noticed while reading: files left out, and files whose name promises another format."""
    names, n = listed.files.names, len(listed.files.names)
    findings = []
    if store.unreadable:
        left_out = tuple(f"{names[position]}: {reason}" for position, reason in store.unreadable)
        severity: Literal["minor", "serious"] = "serious" if len(left_out) > n / 20 else "minor"
        evidence = f"{len(left_out)} of {n} files cannot be decoded whole and were left out"
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
            f"{len(odd)} files hold another format than their names say; they were read as what they are"
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
