"""Cache of decoded images on disk, keyed by content.

It holds the pixels or, above a size limit, the bytes of the image files.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresslens.core.bit_depth import WHITE
from stresslens.core.cache_damage import damage_in
from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.errors import DataError, Notice, SizesDiffer, StresslensError
from stresslens.core.files import UnreadableRun, read_json, sync, write_atomically, write_json
from stresslens.core.image_files import (
    FACTS,
    DecodedFiles,
    Fit,
    Frame,
    Item,
    Unreadable,
    decode,
    digest,
    quietly,
    read_image,
)
from stresslens.core.image_formats import OPTIONAL
from stresslens.core.parallel_decode import decoded_groups
from stresslens.core.progress import advance
from stresslens.core.stored_images import Stored, load_facts
from stresslens.core.temporary_files import remove_leftovers, temporary_folder

VERSION = 3
"""Part of every key; it changes when decoding changes."""

ROOM = 1.1
"""The free disk space must be this many times the size of the images."""


@dataclass(frozen=True)
class Files:
    """Image files in the order of their names.

    `read` yields each file with its position, as a path or as bytes, in any order. `stamp` changes
    if a file is added, removed, renamed or written; while it is the same, no file is read again.
    """

    names: Sequence[str]
    total: int
    """Size of all files, in bytes."""
    stamp: str
    read: Callable[[], Iterator[Item]]


@dataclass(frozen=True)
class Store:
    """The result of decoding: the readable images, and why the others cannot be read."""

    images: Stored
    positions: NDArray[np.int64]
    """(N,) positions of the readable images among the files."""
    facts: NDArray[np.void]
    """(N,) of dtype FACTS."""
    unreadable: list[tuple[int, str]]
    """Position and reason of each unreadable file."""


@dataclass(frozen=True)
class Order:
    """Which files to decode, and how.

    With `size` None, the images keep their size, which must then be the same for all. With
    `channels` None, there are 3 channels if any image has colours, or else 1. `white` is the value of
    white in images of more than 8 bits. If the pixels of all
    images take more than `most_bytes`, the bytes of the files are kept instead, and each batch is
    decoded when it is read.
    """

    files: Files
    name: str
    size: tuple[int, int] | None
    fit: Fit
    channels: int | None
    most_bytes: float
    white: int = WHITE

    @property
    def options(self) -> str:
        """The options that the result depends on, besides the files."""
        return json.dumps([VERSION, self.size, self.fit, self.channels, self.white, *OPTIONAL])

    def pixels_in(self, frame: Frame) -> int:
        """Bytes of all images in this frame."""
        assert frame.size is not None
        return len(self.files.names) * frame.channels * frame.size[0] * frame.size[1]

    def folder_name(self, digests: bytes = b"", *, as_pixels: bool = True) -> str:
        """The name of the result's folder, from the files' digests; without them, only its
        prefix."""
        key = digest(f"{self.options} {as_pixels}".encode() + digests).hex() if digests else ""
        return f"{len(self.files.names)}-{self.files.total}-{key}"


def decoded(order: Order) -> Store:
    """Decodes every file, or takes the images from the cache if the files are the same.

    A folder of the cache that is damaged is named in a Notice, and made again from the files. Raises
    DataError if no file can be read, if the images cannot be decoded as ordered, or without a place
    for them.
    """
    caches = [root / "pictures" for root in readable_caches()]
    index = f"index/{digest(f'{order.files.stamp} {order.options}'.encode()).hex()}.json"
    for cache in caches:
        with suppress(UnreadableRun, KeyError, TypeError):  # a missing or damaged index is made again
            folder = cache / str(read_json(cache / index)["folder"])
            if _is_usable(folder, order):
                return _opened(folder)
    for cache in caches:
        remove_leftovers(cache)
    found = (same for cache in caches if (same := _same_content(order, cache)) is not None)
    folder = next(found, None) or _decode(order)
    if read_json(folder / "meta.json")["lasting"]:
        with suppress(StresslensError):  # a cache that can only be read
            write_json(folder.parent / index, {"folder": folder.name})
    return _opened(folder)


def _is_usable(folder: Path, order: Order) -> bool:
    """Whether the folder is there, whole and within the order's limit. A damaged one is removed."""
    if not folder.is_dir():
        return False
    damage = damage_in(folder)
    if damage is not None:
        what = f"{order.name}: the cache of decoded images in {folder} is damaged: {damage}"
        warnings.warn(f"{what}; the files are decoded again", Notice, stacklevel=2)
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return _keeps_limit(folder, order.most_bytes)


def _keeps_limit(folder: Path, most_bytes: float) -> bool:
    """Whether the folder holds pixels, or the pixels would take more than `most_bytes`."""
    if (folder / "pixels").exists():
        return True
    frame = read_json(folder / "meta.json")["frame"]
    return len(load_facts(folder)) * int(np.prod([frame["channels"], *frame["size"]])) > most_bytes


def _opened(folder: Path) -> Store:
    meta = read_json(folder / "meta.json")
    frame = Frame(**meta["frame"] | {"size": tuple(meta["frame"]["size"])})
    facts = load_facts(folder)
    positions = np.flatnonzero(facts["bytes"])
    unreadable = [(int(position), str(reason)) for position, reason in meta["unreadable"]]
    return Store(Stored(folder, frame, positions), positions, facts[positions], unreadable)


def _same_content(order: Order, cache: Path) -> Path | None:
    """The cache folder of files with the same content, or None.

    The files may have been elsewhere, or may have been touched since. They are read only if the
    cache has a folder with the same number of files and bytes.
    """
    candidates = list(cache.glob(f"{order.folder_name()}*"))
    if not candidates:
        return None
    digests = [digest(b"")] * len(order.files.names)
    for position, file in order.files.read():
        with suppress(OSError, Unreadable):
            digests[position] = digest(read_image(file))
    wanted = {order.folder_name(b"".join(digests), as_pixels=as_pixels) for as_pixels in (True, False)}
    return next(
        (folder for folder in candidates if folder.name in wanted and _is_usable(folder, order)),
        None,
    )


class _Recolour(Exception):
    """An image has colours although the first images were grey."""


def _decode(order: Order) -> Path:
    frame = _first_frame(order)
    try:
        return _write(order, frame)
    except _Recolour:
        return _write(order, replace(frame, channels=3))


def _first_frame(order: Order) -> Frame:
    """The frame; options that the order leaves open follow from the first readable image."""
    reasons = []
    for position, file in order.files.read():
        try:
            with quietly():
                picture = decode(read_image(file), Frame(3, order.size, order.fit, order.white))
        except (OSError, Unreadable) as error:
            reasons.append(f"{order.files.names[position]}: {error}")
            continue
        return Frame(
            order.channels or (3 if picture.coloured else 1),
            order.size or (picture.height, picture.width),
            order.fit,
            order.white,
        )
    shown = "\n".join(reasons[:20]) + (f"\n… and {len(reasons) - 20} more" if len(reasons) > 20 else "")
    raise DataError(f"{order.name}: none of the {len(reasons)} files can be read as an image\n{shown}")


def _write(order: Order, frame: Frame) -> Path:
    needed = order.pixels_in(frame)
    size = needed if needed <= order.most_bytes else order.files.total
    what = f"{order.name}: the decoded images take {size / 1e9:.1f} GB"
    cache = writable_cache("pictures", size * ROOM, what)
    with temporary_folder(cache / order.folder_name()) as temporary:
        return _fill(temporary / "decoded", order, cache, frame)


def _fill(partial: Path, order: Order, cache: Path, frame: Frame) -> Path:
    """Decodes every file into the new folder `partial`, and moves it to its place in the cache."""
    assert frame.size is not None
    files, n = order.files, len(order.files.names)
    needed = order.pixels_in(frame)
    as_pixels = needed <= order.most_bytes
    try:
        partial.mkdir()
        pixels = partial / "pixels" if as_pixels else None
        if pixels is not None:
            with pixels.open("wb") as file:
                file.truncate(needed)
        facts = np.zeros(n, FACTS)
        unreadable: list[tuple[int, str]] = []
        lasting, done = True, 0
        with (partial / "encoded").open("wb") as encoded:
            for group in decoded_groups(files.read(), n, files.total, frame, pixels=pixels):
                if order.channels is None and frame.channels == 1 and any(group.facts["coloured"]):
                    raise _Recolour
                if order.size is None:
                    _check_one_size(group, frame.size, order)
                facts[group.positions] = group.facts
                for position, content in zip(group.positions, group.contents):
                    facts["start"][position] = encoded.tell()
                    encoded.write(content)
                for position, reason, file_digest, permanent in group.unreadable:
                    facts["file_digest"][position] = np.void(file_digest)
                    unreadable.append((position, reason))
                    lasting = lasting and permanent
                done += len(group.positions) + len(group.unreadable)
                advance(f"decoding {Path(order.name).name}", done, n)
        if as_pixels:
            (partial / "encoded").unlink()
        for written in partial.iterdir():
            sync(written)
        write_atomically(partial / "facts.npy", lambda file: np.save(file, facts))
        meta = {
            "format": VERSION,
            "facts_digest": digest((partial / "facts.npy").read_bytes()).hex(),
            "frame": asdict(frame),
            "unreadable": sorted(unreadable),
            "lasting": lasting,
        }
        write_json(partial / "meta.json", meta)
        folder = cache / order.folder_name(facts["file_digest"].tobytes(), as_pixels=as_pixels)
        sync(partial)
        try:
            partial.rename(folder)
            sync(cache)
        except OSError:
            if not (folder / "meta.json").exists():  # otherwise another process was faster
                raise
        return folder
    except OSError as error:
        raise StresslensError(
            f"{order.name} cannot be decoded into {cache}: {error.strerror or error}; "
            "XDG_CACHE_HOME moves that folder"
        ) from error


def _check_one_size(group: DecodedFiles, size: tuple[int, int], order: Order) -> None:
    for position, height, width in zip(group.positions, group.facts["height"], group.facts["width"]):
        if (height, width) != size:
            side = _suitable_side(group)
            raise SizesDiffer(
                f"{order.name}: the images differ in size (the first is {size[1]}×{size[0]} pixels, "
                f"{order.files.names[position]} {width}×{height}); set `size`, for example data.size={side} "
                f"on the command line or `size: {side}` in a study file, and `fit` to crop, pad or stretch",
                side,
            )


def _suitable_side(group: DecodedFiles) -> int:
    """The median of the shorter sides, a multiple of 8 between 8 and 224 pixels."""
    shorter = np.median(np.minimum(group.facts["height"], group.facts["width"]))
    return int(np.clip(8 * round(float(shorter) / 8), 8, 224))
