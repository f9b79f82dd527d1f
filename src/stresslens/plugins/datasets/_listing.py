"""Listing of a user's image files, labels and splits: directory, zip or tar archive, CSV or
parquet."""

from __future__ import annotations

import errno
import json
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.disk_errors import refusal
from stresslens.core.errors import DataError, StresslensError, first_line
from stresslens.core.files import UnreadableRun, read_json, write_bytes
from stresslens.core.image_cache import Files
from stresslens.core.image_files import MOST_BYTES, Item, Unreadable, digest, files_below
from stresslens.core.image_formats import hidden, is_image, left_out, pictures_among
from stresslens.core.run_paths import runs_in
from stresslens.core.text import printable
from stresslens.core.types import Finding
from stresslens.plugins.datasets._archive_names import is_folder, with_slashes, zip_names
from stresslens.plugins.datasets._class_folders import PARTS, class_folders
from stresslens.plugins.datasets._table import table_rows

T = TypeVar("T")
TABLES = (".csv", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(OSError, ValueError, NotImplementedError),
)
"""What zipfile and tarfile raise for archives with changed bytes: offsets before the file's start, names
in no encoding, methods that are not there."""


@dataclass(frozen=True)
class Listing:
    """Image files sorted by name, with a label and, if given, a part and column values for each."""

    files: Files
    labels: Sequence[str]
    parts: Sequence[str | None]
    columns: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def listing(path: Path, chosen: Collection[str] | None = None, encoding: str | None = None) -> Listing:
    """Lists the image files of a directory, a zip or tar archive, or a CSV or parquet table.

    A table has the columns path, label and more. `chosen` are the classes that the user names.
    `encoding` is that of a table, and of names in a zip that does not say it. Raises DataError if
    there are no image files, or if a table is not valid.
    """
    if path.is_dir():
        if runs_in(path):
            raise DataError(f"{path} is a folder of runs that stresslens trained, not of images")
        return _of_directory(path, chosen)
    if not path.exists():
        raise DataError(
            f"there is no {path} (working folder: {Path.cwd()})"
            if not path.is_absolute()
            else f"there is no {path}"
        )
    if path.suffix.lower() == ".npz":
        raise DataError(f"{path} holds arrays, which another dataset reads: {{npz: {{path: {path}}}}}")
    try:
        if path.suffix.lower() in TABLES:
            return _of_table(path, encoding)
        if zipfile.is_zipfile(path):
            return _of_zip(path, chosen, encoding)
        if tarfile.is_tarfile(path):
            return _of_tar(path, chosen)
    except DAMAGED as error:
        raise _unusable(path, error) from error
    if path.suffix.lower() in ARCHIVES:
        raise DataError(f"{path} is not a whole archive: it is cut short or damaged; download it again")
    raise DataError(f"{path} is neither a folder, a zip or tar archive, nor a table ({', '.join(TABLES)})")


def _unusable(path: Path, error: Exception) -> DataError:
    """The error for a file that the system does not read, or whose bytes are damaged: then an OSError has
    no number, or says that a position before the start is not valid."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return DataError(f"{path} cannot be read: {refusal(error)}")
    return DataError(f"{path} is damaged ({first_line(error)}); download it again")


def _of_directory(root: Path, chosen: Collection[str] | None) -> Listing:
    images: list[tuple[str, str, int, int]] = []
    others = []
    cut = len(os.path.join(root, ""))
    for entry in files_below(str(root)):
        name = printable(entry.path[cut:].replace(os.sep, "/"))
        if is_image(entry.name):
            images.append((name, entry.path, *size_and_time(entry)))
        else:
            others.append(name)
    if not images:
        _refuse_other_formats(root, others)
    images.sort()
    skipped, names = _without_wrapper([name for name, *_ in images], parts_too=False)
    below = root.joinpath(*skipped)
    folders = [
        name for name in _folders(below) for name in (name, *(f"{name}/{i}" for i in _folders(below / name)))
    ]
    of = class_folders(names, str(root), folders=folders, chosen=chosen)
    found = [images[k] for k in of.kept]
    stamp = digest(repr((str(root.resolve()), [(name, *facts) for name, _, *facts in found])).encode()).hex()

    def read() -> Iterator[Item]:
        return enumerate(path for _, path, *_ in found)

    files = Files([name for name, *_ in found], sum(size for _, _, size, _ in found), stamp, read)
    return _with_left_out(Listing(files, of.labels, of.parts, {}, of.notes, of.findings), others, skipped)


OTHER_FORMATS = {
    ".parquet": "huggingface",
    ".arrow": "huggingface",
    ".tar": "webdataset",
    ".tgz": "webdataset",
    ".npy": "npz",
    ".npz": "npz",
}
"""Files that another dataset reads, and its name."""


def _refuse_other_formats(root: Path, files: Sequence[str]) -> None:
    """Raises DataError for a folder without image files but with files that another dataset reads."""
    for name in files:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in OTHER_FORMATS:
            inside = f"{root / name}" if suffix == ".npz" else f"{root}"
            raise DataError(
                f"{root} holds no image files, but {suffix[1:]} files, which another dataset reads: "
                f"{{{OTHER_FORMATS[suffix]}: {{path: {inside}}}}}"
            )


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(printable(entry.name) for entry in entries if entry.is_dir())
    except OSError:
        return []


def _without_wrapper(names: Sequence[str], *, parts_too: bool) -> tuple[list[str], list[str]]:
    """The folders that everything is in, which are no classes (nor, without `parts_too`, parts), and the
    names without them."""
    split, skipped = [name.split("/") for name in names], list[str]()
    while len({parts[0] for parts in split}) == 1 and all(len(parts) > 2 for parts in split):
        top = split[0][0]
        if top.lower() in PARTS and not parts_too:
            break
        skipped.append(top)
        split = [parts[1:] for parts in split]
    return skipped, ["/".join(parts) for parts in split]


def _with_left_out(listed: Listing, others: Sequence[str], skipped: Sequence[str] = ()) -> Listing:
    """The listing with notes on the folders that were skipped and on files that are not images by their
    names, and a finding if pictures are among these."""
    wrapper = [f"everything is in one folder, {top!r}, which was skipped" for top in skipped]
    said = left_out(others)
    pictures = pictures_among(others)
    notes = [*wrapper, *listed.notes, *([said[0]] if said and not pictures else [])]
    findings = list(listed.findings)
    if said and pictures:
        n = len(pictures) + len(listed.files.names)
        severity: Literal["minor", "serious"] = "serious" if len(pictures) > n / 20 else "minor"
        findings.append(
            Finding("files left out", "sign", severity, said[0], n, said[1], tuple(sorted(pictures)[:50]))
        )
    return replace(listed, notes=notes, findings=findings)


def _of_zip(path: Path, chosen: Collection[str] | None, encoding: str | None) -> Listing:
    with zipfile.ZipFile(path) as archive:
        shown, notes = zip_names(archive.infolist(), encoding)
        folders = [shown[info.filename].rstrip("/") for info in archive.infolist() if is_folder(info)]
        sizes = {info.filename: info.file_size for info in archive.infolist() if not is_folder(info)}
        if any(info.flag_bits & 1 for info in archive.infolist()):
            raise DataError(f"{path} is encrypted; unpack it first")

    def read(wanted: dict[str, int]) -> Iterator[Item]:
        try:
            again = zipfile.ZipFile(path)
        except DAMAGED as error:
            raise _unusable(path, error) from error
        with again as archive:
            for name, position in wanted.items():
                try:
                    yield (
                        position,
                        archive.read(name)
                        if sizes[name] <= MOST_BYTES
                        else Unreadable("larger than 512 MB unpacked"),
                    )
                except DAMAGED as error:
                    yield position, Unreadable(f"cannot be unpacked ({error})")

    listed = _of_archive(path, {name: shown[name] for name in sizes}, sizes, read, folders, chosen)
    return replace(listed, notes=[*notes, *listed.notes])


def _of_tar(path: Path, chosen: Collection[str] | None) -> Listing:
    def members() -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        try:
            with tarfile.open(path) as archive:
                yield from ((archive, member) for member in archive if not (member.isdir() or member.isdev()))
                check_end(path, archive)
        except DAMAGED as error:
            raise _unusable(path, error) from error

    def sizes_and_places() -> dict[str, tuple[int, int]]:
        # of several members with the same name, the last counts
        return {member.name: (member.size, number) for number, (_, member) in enumerate(members())}

    def checked(index: Any) -> dict[str, tuple[int, int]]:
        return {name: (int(size), int(number)) for name, (size, number) in index.items()}

    listed = kept_index(f"{_stamp(path)}.members.json", sizes_and_places, checked)
    sizes = {name: size for name, (size, _) in listed.items()}
    if any(name.lower().endswith(".cls") for name in sizes):
        raise DataError(
            f"{path} holds samples with their labels (.cls), which another dataset reads: "
            f"{{webdataset: {{path: {path}}}}}"
        )

    def read(wanted: dict[str, int]) -> Iterator[Item]:
        for number, (archive, member) in enumerate(members()):
            if member.name in wanted and number == listed[member.name][1]:
                yield wanted[member.name], content_of(archive, member)

    return _of_archive(path, {name: with_slashes(name) for name in sizes}, sizes, read, [], chosen)


def kept_index(name: str, make: Callable[[], Any], read: Callable[[Any], T]) -> T:
    """What `read` returns of an index of an archive, which is made once and kept in the cache: listing a
    compressed tar takes as long as unpacking it, and 100,000 headers take some seconds."""
    for cache in readable_caches():
        with suppress(UnreadableRun, TypeError, KeyError, ValueError, AttributeError):  # missing, or damaged
            return read(read_json(cache / "pictures" / "index" / name))
    made = make()
    with suppress(StresslensError):  # a cache that can only be read
        write_bytes(writable_cache("pictures/index") / name, json.dumps(made).encode())
    return read(made)


def check_end(path: Path, archive: tarfile.TarFile) -> None:
    """Raises DataError unless the members of a tar that were listed are all that it holds.

    tarfile takes a damaged header for the end of the archive. The end is a block of zeros, and only
    zeros follow it.
    """
    file: Any = archive.fileobj
    file.seek(archive.offset)
    block = file.read(tarfile.BLOCKSIZE)
    last = f" behind {printable(archive.getmembers()[-1].name)}" if archive.getmembers() else ""
    if len(block) < tarfile.BLOCKSIZE:
        raise DataError(
            f"{path} is cut short{last}: the end mark of a tar is missing; download it again, or repack it"
        )
    if any(block):
        raise DataError(f"{path} is damaged{last}: the next header cannot be read; download it again")
    while content := file.read(2**20):
        if content.count(0) < len(content):
            raise DataError(
                f"{path} goes on after the end of a tar{last}: it is damaged, or several archives joined; "
                "download it again, or unpack it and give the folder"
            )


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Unreadable:
    """The content of a member; links are followed inside the archive."""
    if member.size > MOST_BYTES:
        return Unreadable("larger than 512 MB unpacked")
    try:
        content = archive.extractfile(member)
    except KeyError:
        content = None
    return (
        content.read() if content is not None else Unreadable("a link to a file that is not in the archive")
    )


def _of_archive(
    path: Path,
    shown: Mapping[str, str],
    sizes: Mapping[str, int],
    read: Any,
    folders: Sequence[str],
    chosen: Collection[str] | None,
) -> Listing:
    """The listing of an archive.

    `shown` are the names of its members as people read them, `sizes` their sizes, both by the name in
    the archive; `folders` are members without content. `read` gets the wanted members with their
    positions, and yields each position with its content.
    """
    inside = {name: PurePosixPath(printable(text)) for name, text in shown.items()}
    parents = {str(above) for p in inside.values() for above in p.parents}
    seen = {name: p for name, p in inside.items() if not any(hidden(part) for part in p.parts if part != ".")}
    by_name = sorted((str(p), name) for name, p in seen.items() if is_image(str(p)))
    skipped, names = _without_wrapper([name for name, _ in by_name], parts_too=True)
    wrapper = "".join(f"{top}/" for top in skipped)
    below = [
        f.removeprefix(wrapper) for f in sorted({*parents, *folders}) if f.startswith(wrapper) and f != "."
    ]
    of = class_folders(names, str(path), folders=below, chosen=chosen)
    positions = {by_name[k][1]: position for position, k in enumerate(of.kept)}
    files = Files(
        [names[k] for k in of.kept],
        sum(sizes[name] for name in positions),
        _stamp(path),
        lambda: read(positions),
    )
    others = [str(p) for p in seen.values() if not is_image(str(p))]
    return _with_left_out(Listing(files, of.labels, of.parts, {}, of.notes, of.findings), others, skipped)


def _stamp(path: Path) -> str:
    facts = path.stat()
    return digest(repr((str(path.resolve()), facts.st_size, facts.st_mtime_ns)).encode()).hex()


def _of_table(path: Path, encoding: str | None) -> Listing:
    rows = table_rows(path, encoding)
    columns = list(rows[0][1])
    rows.sort(key=lambda row: row[1]["path"])
    paths = [path.parent / row["path"] for _, row in rows]
    stats = [size_and_time(p) for p in paths]
    stamp = digest(repr((str(path.resolve()), [str(p) for p in paths], stats)).encode()).hex()

    def read() -> Iterator[Item]:
        return enumerate(map(str, paths))

    files = Files([row["path"] for _, row in rows], sum(size for size, _ in stats), stamp, read)
    others = [name for name in columns if name not in ("path", "label", "split")]
    parts = [PARTS[row["split"].lower()] if "split" in row else None for _, row in rows]
    return Listing(
        files,
        [row["label"] for _, row in rows],
        parts,
        {name: [row[name] for _, row in rows] for name in others},
    )


def size_and_time(file: Path | os.DirEntry[str]) -> tuple[int, int]:
    """A file's size in bytes and the time of its last change; zeros for a file that is not there."""
    try:
        facts = file.stat()
    except OSError:  # reported when the file is decoded
        return 0, 0
    return facts.st_size, facts.st_mtime_ns
