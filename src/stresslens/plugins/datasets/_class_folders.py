"""Classes and parts (train, validation, test) from the folders in which image files are."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.image_formats import SUFFIXES, hidden
from stresslens.core.types import Finding

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders, and values of the column `split`, and the part that they stand for."""


def sources_of_parts(given: Mapping[str, str], option: str) -> dict[str | None, str]:
    """The source (a split, an array) that an option names for each part. Raises ConfigError for a name that
    is no part, and for a part or a source that is named twice: no image is in two parts."""
    if not given:
        raise ConfigError(f"{option}: no part is named; write `{option}: {{train: NAME, test: NAME}}`")
    found: dict[str | None, str] = {}
    for name, source in given.items():
        part = PARTS.get(name.lower())
        if part is None:
            raise ConfigError(f"{option}: {name!r} is no part; valid: train, validation, test")
        if part in found:
            raise ConfigError(f"{option}: {part} is named twice, as {found[part]} and as {source}")
        if source in found.values():
            raise ConfigError(
                f"{option}: {source!r} is named for two parts; a model would be tested on images that it has "
                f"learned. `{option}: {source}` divides it into parts"
            )
        found[part] = source
    return found


class ClassFolders(NamedTuple):
    """What the folders say of the images that are in a class folder."""

    kept: list[int]
    """Positions of these images."""
    labels: list[str]
    parts: list[str | None]
    notes: list[str]
    findings: list[Finding]


def class_folders(
    names: Sequence[str], where: str, *, folders: Iterable[str], chosen: Collection[str] | None
) -> ClassFolders:
    """Labels and parts from the folders in the images' names ("train/cat/1.png").

    `folders` are all folders, also those without images. `chosen` are the classes that the user names:
    folders called train or test are classes if he names them. Raises DataError where folders may be
    classes or parts.
    """
    split = [name.split("/") for name in names]
    named = _part_folders(split, where, chosen)
    depth = 1 if named else 0
    kept = [k for k, parts in enumerate(split) if len(parts) > depth + 1]
    if not kept:
        hint = (
            "each class needs a folder of image files"
            if names
            else f"image files end in {', '.join(sorted(SUFFIXES))}"
        )
        if named:
            hint += (
                f"; if {', '.join(sorted(named))} are the classes, name them: `classes: [{_listed(named)}]`"
            )
        raise DataError(f"{where} holds {len(names)} image files, none of them in a class folder; {hint}")
    stray = len(names) - len(kept)
    notes = [f"{stray} image files that are not in a class folder were left out"] if stray else []
    labels, merged = _of_one_form([split[k][depth] for k in kept])
    parts = [PARTS[split[k][0].lower()] if named else None for k in kept]
    notes += [*merged, *_nested([split[k] for k in kept], depth), *_hidden(folders)]
    return ClassFolders(kept, labels, parts, notes, _without_images(folders, labels, depth, named))


def _part_folders(split: Sequence[Sequence[str]], where: str, chosen: Collection[str] | None) -> set[str]:
    """The folders that are parts; none if the first folders are the classes."""
    tops = {parts[0] for parts in split if len(parts) > 1}
    named = {top for top in tops if top.lower() in PARTS}
    below = {parts[1] for parts in split if len(parts) > 2 and parts[0] in named}
    if named and chosen is not None and set(chosen) <= tops and not set(chosen) <= below:
        return set()
    said = f"{where} has folders for parts ({', '.join(sorted(named))})"
    remedy = f"if they are classes, name the classes: `classes: [{_listed(tops)}]`"
    if named and tops != named:
        others = ", ".join(sorted(tops - named)[:5])
        raise DataError(f"{said} and others beside them ({others}); which are the classes? {remedy}")
    if named and below and "train" not in {PARTS[top.lower()] for top in named}:
        raise DataError(f"{said}, and none of them is `train`; {remedy}")
    if named and not below and "train" not in {PARTS[top.lower()] for top in named}:
        raise DataError(f"{said}, and none of them is `train`, nor has class folders; {remedy}")
    return named


def _listed(folders: Iterable[str]) -> str:
    shown = sorted(folders)
    return ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")


def _of_one_form(labels: list[str]) -> tuple[list[str], list[str]]:
    """Labels in which names that differ only by their Unicode form are one class."""
    forms = defaultdict(set)
    for label in set(labels):
        forms[unicodedata.normalize("NFC", label)].add(label)
    double = sorted(form for form, several in forms.items() if len(several) > 1)
    if not double:
        return labels, []
    one = {label: form for form in double for label in forms[form]}
    note = f"folders whose names differ only by their Unicode form are one class: {_listed(double)}"
    return [one.get(label, label) for label in labels], [note]


def _nested(split: Sequence[Sequence[str]], depth: int) -> list[str]:
    """A note on class folders that hold folders of images."""
    inside = defaultdict(set)
    for parts in split:
        if len(parts) > depth + 2:
            inside[parts[depth]].add(parts[depth + 1])
    several = {label: sorted(names) for label, names in sorted(inside.items()) if len(names) > 1}
    shown = "; ".join(f"{label}: {_listed(names)}" for label, names in list(several.items())[:3])
    return (
        [f"{len(several)} class folders hold folders of images, which all count as that class ({shown})"]
        if several
        else []
    )


def _hidden(folders: Iterable[str]) -> list[str]:
    """A note on folders that are passed over: hidden ones and those of an operating system."""
    passed = sorted({folder.rpartition("/")[2] for folder in folders if hidden(folder.rpartition("/")[2])})
    return [f"hidden folders and folders of the system were left out: {_listed(passed)}"] if passed else []


def _without_images(
    folders: Iterable[str], labels: Sequence[str], depth: int, named: Collection[str]
) -> list[Finding]:
    """A finding on class folders without an image."""
    known, empty = set(labels), set()
    for folder in folders:
        parts = folder.split("/")
        seen = not any(hidden(part) for part in parts)
        if seen and len(parts) == depth + 1 and (not named or parts[0].lower() in PARTS):
            name = unicodedata.normalize("NFC", parts[depth])
            if parts[depth] not in known and name not in known:
                empty.add(folder)
    if not empty:
        return []
    evidence = f"class folders without an image, which are no classes here: {_listed(empty)}"
    remedy = "add images, or remove the folders"
    return [
        Finding("empty class folders", "sign", "serious", evidence, len(labels), remedy, tuple(sorted(empty)))
    ]
