"""Image files that are listed with their labels, decoded and divided into a data set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stresslens.core.bit_depth import WHITE
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError, naming
from stresslens.core.image_cache import Order, Store, decoded
from stresslens.core.image_files import MOST_PIXELS, Fit
from stresslens.core.image_formats import SUFFIXES
from stresslens.core.spelling import closest
from stresslens.core.types import Finding
from stresslens.plugins.datasets._division import Division, chosen_classes, divided_as_given, renamed
from stresslens.plugins.datasets._listing import Listing
from stresslens.plugins.datasets._pixel_format import settled_by_training

Colours = Literal["auto", "grey", "rgb"]
Unreadable = Literal["error", "skip"]


@dataclass(frozen=True)
class Decoding:
    """How image files become pixels: the options of those names of the dataset `folder`."""

    size: int | tuple[int, int] | None = None
    fit: Fit = "crop"
    colours: Colours = "auto"
    unreadable: Unreadable = "error"
    cache_gb: float = 16.0
    white: Literal["auto"] | int = "auto"

    def order(self, listed: Listing, name: str) -> Order:
        """Raises ConfigError for a size with more pixels than any image that is read has."""
        wanted = (self.size, self.size) if isinstance(self.size, int) else self.size
        if wanted is not None and wanted[0] * wanted[1] > MOST_PIXELS:
            raise ConfigError(
                f"size: {wanted[0]}×{wanted[1]} pixels are more than the {MOST_PIXELS:,} that an image may "
                "have; give a smaller size"
            )
        channels = {"auto": None, "grey": 1, "rgb": 3}[self.colours]
        white = WHITE if self.white == "auto" else self.white
        return Order(listed.files, name, wanted, self.fit, channels, self.cache_gb * 1e9, white)


# long: one step after the other, each in its own function
def data_of_files(
    listed: Listing,
    name: str,
    decoding: Decoding,
    division: Division,
    *,
    classes: Sequence[str] | None = None,
    every: Sequence[str] | None = None,
    names: Mapping[str, str] | Sequence[str] | None = None,
    group: str | None = None,
    slices: Sequence[str] | None = None,
    place: str | None = None,
) -> Data:
    """The data set of listed files; `classes`, `names`, `group` and `slices` are the options of those
    names of the dataset `folder`. `every` are all classes in their order, by default the labels, sorted.
    `place` is what messages on the files call it, by default its name.

    Raises ConfigError and DataError as that does."""
    order = decoding.order(listed, place or name)
    store = decoded(order)
    if store.unreadable and decoding.unreadable == "error":
        reasons = [f"{listed.files.names[position]}: {reason}" for position, reason in store.unreadable]
        raise DataError(
            f"{name}: {len(reasons)} of {len(listed.files.names)} files cannot be read as images\n"
            + "\n".join(reasons)
            + "\nRepair or remove them, or leave them out with `unreadable: skip`"
        )
    labels = [listed.labels[position] for position in store.positions]
    kept = chosen_classes(classes, list(every) if every is not None else sorted(set(listed.labels)), name)
    titles = renamed(kept, names, name)
    number = {label: k for k, label in enumerate(kept)}
    strange = set(labels) - set(kept) if classes is None else ()
    if strange:
        raise DataError(f"{name}: the label {min(strange)!r} is no class; {closest(min(strange), kept)}")
    columns = _columns(listed, store, group, slices, name)
    parts = [listed.parts[position] for position in store.positions]

    def divided_into_parts(store: Store) -> Data:
        labelled = torch.tensor([number.get(label, -1) for label in labels])
        whole = Split(store.images, labelled, columns=columns)
        kept_parts = [part if label in number else "" for part, label in zip(parts, labels)]
        given = {
            part: whole.select([k for k, of_image in enumerate(kept_parts) if of_image == part])
            for part in set(kept_parts) - {""}
        }
        with naming(name):
            return divided_as_given(given, titles, name, division)

    data = divided_into_parts(store)
    settled, notes = settled_by_training(order, store, data, auto_white=decoding.white == "auto")
    if settled != order:
        data = divided_into_parts(_of_same_files(decoded(settled), store, name))
    return replace(
        data,
        notes=(*listed.notes, *data.notes, *notes),
        findings=tuple(_findings(listed, store)),
        fit=decoding.fit,
        white=settled.white,
        slices=tuple(slices or ()),
    )


def _of_same_files(anew: Store, store: Store, name: str) -> Store:
    """The images of `store` as they were decoded anew. Raises DataError where one is not readable so."""
    rows = np.flatnonzero(np.isin(anew.positions, store.positions))
    if len(rows) < len(store.positions):
        reasons = "; ".join(reason for _, reason in anew.unreadable)
        raise DataError(f"{name}: some files cannot be decoded with another value of white ({reasons})")
    return replace(anew, images=anew.images.select(torch.from_numpy(rows)), positions=store.positions)


def _columns(
    listed: Listing, store: Store, group: str | None, slices: Sequence[str] | None, name: str
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
    if store.facts["camera"].any():
        columns.setdefault("camera", store.facts["camera"].astype(object))
    columns.setdefault("format", store.facts["format"].astype(object))
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
