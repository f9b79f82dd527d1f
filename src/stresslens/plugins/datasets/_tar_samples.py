"""Samples in tar archives as WebDataset has them: members of one name and several suffixes.

Nothing is unpacked to disk. Members whose names lead outside of a folder are refused all the same,
because such an archive harms those who unpack it elsewhere.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.image_cache import Files
from stresslens.core.image_files import Item, digest
from stresslens.core.image_formats import SUFFIXES
from stresslens.core.spelling import closest
from stresslens.core.text import counted, printable, repeated_words
from stresslens.plugins.datasets._archive_names import with_slashes
from stresslens.plugins.datasets._class_folders import PARTS
from stresslens.plugins.datasets._listing import (
    DAMAGED,
    Listing,
    check_end,
    content_of,
    kept_index,
    size_and_time,
)
from stresslens.plugins.datasets._shard_names import split_of_shard

LABELS = ("cls", "cls.txt", "label", "label.txt", "class")
"""Suffixes of members that hold a class."""
MOST_OF_A_LABEL = 2**20
"""A label is text of at most so many bytes."""
CLASS_NAMES = ("classnames.txt", "classes.txt")
"""Files beside the shards with the names of the classes 0, 1, …, one a line."""


def shards_at(path: str) -> tuple[list[Path], Path]:
    """The tar archives of a folder, of a pattern (shards/*.tar, train-{000..009}.tar) or of a path, and
    the folder above them. Raises DataError where there are none."""
    if re.match(r"\w+://|pipe:", path):
        raise DataError(f"{path} is an address; download the shards and give their folder")
    place = Path(path).expanduser()
    if place.is_dir():
        found = sorted(each for each in place.rglob("*") if re.search(r"\.(tar|tgz|tar\.\w+)$", each.name))
        root = place
    else:
        found = sorted({Path(name) for each in _braces(str(place)) for name in _matches(each)})
        root = Path(os.path.commonpath([each.parent for each in found])) if found else place
    found = [each for each in found if not each.is_dir()]
    if not found:
        raise DataError(f"there are no tar archives at {path} (working folder: {Path.cwd()})")
    for each in found:
        if not each.exists():
            raise DataError(
                f"{each} is a link to a file that is not there; restore the file, or remove the link"
            )
    return found, root


def _matches(pattern: str) -> list[str]:
    return [pattern] if Path(pattern).is_file() else glob.glob(pattern)


def _braces(pattern: str) -> Iterator[str]:
    """The names that a pattern with {000..009} stands for."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    if int(last) - int(first) > 1_000_000:
        raise DataError(f"{pattern} names {int(last) - int(first):,} shards; give their folder")
    for number in range(int(first), int(last) + 1):
        yield from _braces(f"{pattern[: found.start()]}{number:0{len(first)}d}{pattern[found.end() :]}")


@dataclass(frozen=True)
class _Member:
    """One member of an archive."""

    key: str
    suffix: str
    size: int
    number: int
    """Its place in the archive."""
    text: bytes | None
    """The content, of members that may hold a label."""


def _members(shard: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The files in an archive. Raises DataError for a damaged archive, and for names and links that lead
    elsewhere."""
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                name = with_slashes(member.name)
                if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
                    raise DataError(
                        f"{shard}: the member {printable(member.name)!r} leads outside of its folder; such "
                        "an archive may be an attack: make it anew from the files"
                    )
                if member.issym() or member.islnk() or member.isdev():
                    raise DataError(
                        f"{shard}: the member {printable(member.name)!r} is a link or a device, not a file; "
                        "make the archive anew from the files"
                    )
                if member.isfile():
                    yield archive, member
            check_end(shard, archive)
    except DAMAGED as error:
        raise DataError(f"{shard} is no tar archive, or it is damaged ({first_line(error)})") from error


def _kept(shard: Path, label: str | None) -> list[_Member]:
    """The members of an archive, from the cache if it is the same file."""
    facts = repr((str(shard.resolve()), size_and_time(shard), label))

    def made() -> dict[str, Any]:
        texts = ((m, None if m.text is None else m.text.decode("latin-1")) for m in _listed(shard, label))
        return {"members": [(m.key, m.suffix, m.size, m.number, text) for m, text in texts]}

    def read(index: Any) -> list[_Member]:
        return [
            _Member(key, suffix, size, number, None if text is None else text.encode("latin-1"))
            for key, suffix, size, number, text in index["members"]
        ]

    return kept_index(f"{digest(facts.encode()).hex()}.samples.json", made, read)


def _listed(shard: Path, label: str | None) -> Iterator[_Member]:
    wanted = {*LABELS, "json", *([label.partition(".")[0], label] if label else [])}
    for number, (archive, member) in enumerate(_members(shard)):
        folder, _, base = with_slashes(member.name).rpartition("/")
        stem, _, suffix = base.partition(".")
        if not stem or not suffix:
            continue
        text = None
        if suffix.lower() in wanted and member.size <= MOST_OF_A_LABEL:
            content = archive.extractfile(member)
            text = content.read() if content is not None else None
        key = printable(f"{folder}/{stem}" if folder else stem)
        yield _Member(key, suffix.lower(), member.size, number, text)


@dataclass(frozen=True)
class _Sample:
    name: str
    shard: Path
    number: int
    """The place of the picture in the archive."""
    size: int
    label: str
    part: str | None


def listing_of_shards(
    shards: Sequence[Path], root: Path, image: str | None, label: str | None
) -> tuple[Listing, list[str]]:
    """The pictures of all samples with their labels and parts, and all class names.

    `image` is the suffix of pictures; `label` that of labels, or json.KEY. Raises ConfigError for
    suffixes that no sample has, and DataError for samples without a picture or a label.
    """
    image, label = (None if each is None else _as_suffix(each) for each in (image, label))
    samples = [each for shard in shards for each in _samples(shard, root, image, label)]
    if not samples:
        raise DataError(f"{root}: the {len(shards)} archives hold no samples")
    samples.sort(key=lambda sample: sample.name)
    positions = {(each.shard, each.number): position for position, each in enumerate(samples)}

    def read() -> Iterator[Item]:
        for shard in shards:
            for number, (archive, member) in enumerate(_members(shard)):
                if (shard, number) in positions:
                    yield positions[shard, number], content_of(archive, member)

    stamp = digest(repr([(str(s.resolve()), size_and_time(s), image, label) for s in shards]).encode()).hex()
    files = Files([each.name for each in samples], sum(each.size for each in samples), stamp, read)
    labels, every = _named([each.label for each in samples], root)
    return Listing(files, labels, _parts(samples), {}), every


def _as_suffix(given: str) -> str:
    """A suffix as members have it here: in small letters, without a dot before it; keys of JSON stay."""
    suffix = given.lstrip(".")
    return f"json{suffix[4:]}" if suffix.lower().startswith("json.") else suffix.lower()


def _parts(samples: Sequence[_Sample]) -> list[str | None]:
    """The part of each sample. Shards of no part beside those of a part are refused."""
    without = [each.shard for each in samples if each.part is None]
    if without and len(without) < len(samples):
        raise DataError(
            f"{without[0]} does not say which part it is, and others do (train, validation or test in the "
            "name or the folder); rename it, or give the shards of one part"
        )
    return [each.part for each in samples]


def _named(labels: Sequence[str], root: Path) -> tuple[list[str], list[str]]:
    """The class of each sample, and all classes: numbers by their names in a file beside the shards."""
    if not all(re.fullmatch(r"[0-9]{1,18}", label) for label in labels):
        return list(labels), sorted(set(labels))
    numbers = [int(label) for label in labels]
    file = next((root / name for name in CLASS_NAMES if (root / name).is_file()), None)
    if file is None:
        return [str(number) for number in numbers], [str(number) for number in sorted(set(numbers))]
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}, the names of the classes, cannot be read as UTF-8: {error}") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if twice := repeated_words(names):
        raise DataError(f"{file} has the class {twice[0]!r} more than once; give each class its own name")
    if max(numbers) >= len(names):
        named = counted(len(names), "class", "classes")
        raise DataError(f"{file} names {named}, and there is a label {max(numbers)}")
    return [names[number] for number in numbers], names


def _samples(shard: Path, root: Path, image: str | None, label: str | None) -> Iterator[_Sample]:
    by_key: dict[str, dict[str, _Member]] = {}
    for member in _kept(shard, label):
        suffixes = by_key.setdefault(member.key, {})
        if member.suffix in suffixes:
            raise DataError(f"{shard}: {member.key}.{member.suffix} is there twice")
        suffixes[member.suffix] = member
    if not by_key:
        return
    there = Counter(suffix for suffixes in by_key.values() for suffix in suffixes)
    pictures = _suffixes_of_pictures(shard, there, image)
    place = label if label is not None else _suffix_of_labels(shard, there)
    split = split_of_shard(shard, root)
    title = shard.relative_to(root).as_posix() if shard.is_relative_to(root) else shard.name
    for key, suffixes in by_key.items():
        where = f"{shard}: the sample {key}"
        found = [suffixes[suffix] for suffix in pictures if suffix in suffixes]
        if len(found) != 1:
            raise DataError(f"{where} has {len(found)} pictures ({', '.join(suffixes)}); expected one")
        name = f"{printable(title)}/{key}.{found[0].suffix}"
        yield _Sample(
            name, shard, found[0].number, found[0].size, _label(suffixes, place, where), PARTS.get(split)
        )


def _suffixes_of_pictures(shard: Path, there: Mapping[str, int], image: str | None) -> list[str]:
    if image is not None:
        if image not in there:
            raise ConfigError(f"image: {shard} has no members .{image}; {closest(image, list(there))}")
        return [image]
    found = [suffix for suffix in there if f".{suffix}" in SUFFIXES]
    if not found:
        raise DataError(
            f"{shard} has no pictures by their names (members: {', '.join(sorted(there)[:12])}); say which "
            "they are: `image: SUFFIX`"
        )
    return found


def _suffix_of_labels(shard: Path, there: Mapping[str, int]) -> str:
    found = next((suffix for suffix in LABELS if suffix in there), None)
    if found is None:
        raise DataError(
            f"{shard} has no labels by their names, as cls (members: {', '.join(sorted(there)[:12])}); say "
            "which they are: `label: SUFFIX`, or for a key in JSON `label: json.KEY`"
        )
    return found


def _label(suffixes: Mapping[str, _Member], place: str, where: str) -> str:
    """The class of a sample. Raises DataError where it has none."""
    suffix, _, key = place.partition(".") if place not in suffixes else (place, "", "")
    member = suffixes.get(suffix)
    if member is None:
        raise DataError(f"{where} has no {suffix}; it has {', '.join(suffixes)}")
    if member.text is None:
        raise DataError(
            f"{where}: {suffix} has {member.size / 2**20:.0f} MB, and a label is a word or a number"
        )
    try:
        value: Any = member.text.decode("utf-8").strip()
        if suffix == "json":
            value = json.loads(value)
            for step in filter(None, key.split(".")):
                if not isinstance(value, dict) or step not in value:
                    there = list(value) if isinstance(value, dict) else []
                    raise DataError(f"{where}: {place}: there is no key {step!r}; {closest(step, there)}")
                value = value[step]
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: {place} cannot be read ({first_line(error)})") from error
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{where}: {place} is {value!r:.60}; expected a word or a whole number")
    text = str(value)
    if re.fullmatch(r"[+-]?\d*\.\d+|-\d+", text):
        raise DataError(f"{where}: {place} is {text}; expected a word, or a whole number from 0 up")
    return printable(text)
