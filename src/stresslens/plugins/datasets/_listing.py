"""Listing of a user's image files, labels and splits: directory, zip or tar archive, CSV or
parquet."""

from __future__ import annotations

import csv
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from stresslens.core.data import cache_root
from stresslens.core.errors import DataError
from stresslens.core.files import UnreadableRun, read_json, write_bytes
from stresslens.core.image_cache import Files
from stresslens.core.image_files import MOST_BYTES, SUFFIXES, Item, Unreadable, digest, files_below, hidden
from stresslens.core.run_paths import runs_in
from stresslens.core.spelling import closest
from stresslens.core.text import printable

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of folders, and values of the column `split`, and the part that they stand for."""

TABLES = (".csv", ".tsv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class Listing:
    """Image files sorted by name, with a label and, if given, a part and column values for each."""

    files: Files
    labels: Sequence[str]
    parts: Sequence[str | None]
    columns: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)


def listing(path: Path) -> Listing:
    """Lists the image files of a directory, a zip or tar archive, or a CSV or parquet table.

    A table has the columns path, label and more. Raises DataError if there are no image files, or
    if a table is not valid.
    """
    if path.is_dir():
        if runs_in(path):
            raise DataError(f"{path} is a folder of runs that stresslens trained, not of images")
        return _of_directory(path)
    if not path.exists():
        raise DataError(
            f"there is no {path} (working folder: {Path.cwd()})"
            if not path.is_absolute()
            else f"there is no {path}"
        )
    try:
        if path.suffix.lower() in TABLES:
            return _of_table(path)
        if zipfile.is_zipfile(path):
            return _of_zip(path)
        if tarfile.is_tarfile(path):
            return _of_tar(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is damaged ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if path.suffix.lower() in ARCHIVES:
        raise DataError(f"{path} is not a whole archive: it is cut short or damaged; download it again")
    raise DataError(f"{path} is neither a folder, a zip or tar archive, nor a table ({', '.join(TABLES)})")


def _of_directory(root: Path) -> Listing:
    images: list[tuple[str, str, int, int]] = []
    ignored: Counter[str] = Counter()
    cut = len(os.path.join(root, ""))
    for entry in files_below(str(root)):
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in SUFFIXES:
            name = printable(entry.path[cut:].replace(os.sep, "/"))
            images.append((name, entry.path, *_size_and_time(entry)))
        else:
            ignored[suffix] += 1
    images.sort()
    kept, labels, parts, notes = _by_folders([name for name, *_ in images], str(root))
    chosen = [images[k] for k in kept]
    stamp = digest(repr((str(root.resolve()), [(name, *facts) for name, _, *facts in chosen])).encode()).hex()

    def read() -> Iterator[Item]:
        return enumerate(path for _, path, *_ in chosen)

    files = Files([name for name, *_ in chosen], sum(size for _, _, size, _ in chosen), stamp, read)
    return Listing(files, labels, parts, {}, [*notes, *_ignored_note(ignored)])


def _of_zip(path: Path) -> Listing:
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        if any(info.flag_bits & 1 for info in archive.infolist()):
            raise DataError(f"{path} is encrypted; unpack it first")

    def read(wanted: dict[str, int]) -> Iterator[Item]:
        with zipfile.ZipFile(path) as archive:
            for name, position in wanted.items():
                try:
                    yield (
                        position,
                        archive.read(name)
                        if sizes[name] <= MOST_BYTES
                        else Unreadable("larger than 512 MB unpacked"),
                    )
                except (
                    zipfile.BadZipFile,
                    zlib.error,
                    lzma.LZMAError,
                    NotImplementedError,
                    EOFError,
                ) as error:
                    yield position, Unreadable(f"cannot be unpacked ({error})")

    return _of_archive(path, sizes, read)


def _of_tar(path: Path) -> Listing:
    def members() -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        try:
            with tarfile.open(path) as archive:
                yield from ((archive, member) for member in archive if not (member.isdir() or member.isdev()))
                _check_end(path, archive)
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"{path} is damaged ({error}); download it again") from error

    index = cache_root() / "pictures" / "index" / f"{_stamp(path)}.members.json"
    try:  # because listing a compressed tar takes as long as unpacking it
        listed = read_json(index)
    except UnreadableRun:  # of several members with the same name, the last counts
        listed = {member.name: (member.size, number) for number, (_, member) in enumerate(members())}
        write_bytes(index, json.dumps(listed).encode())
    sizes = {name: size for name, (size, _) in listed.items()}

    def read(wanted: dict[str, int]) -> Iterator[Item]:
        for number, (archive, member) in enumerate(members()):
            if member.name in wanted and number == listed[member.name][1]:
                yield wanted[member.name], _member(archive, member)

    return _of_archive(path, sizes, read)


def _check_end(path: Path, archive: tarfile.TarFile) -> None:
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


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | Unreadable:
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


def _of_archive(path: Path, sizes: dict[str, int], read: Any) -> Listing:
    """The listing of an archive.

    `sizes` are those of the members by name. `read` gets the wanted members with their positions,
    and yields each position with its content.
    """
    inside = {name: PurePosixPath(name) for name in sizes}
    seen = {name: p for name, p in inside.items() if not any(hidden(part) for part in p.parts if part != ".")}
    ignored = Counter(p.suffix.lower() for name, p in seen.items() if not _is_image(name))
    images = {name: p for name, p in seen.items() if _is_image(name)}
    skipped = []
    while len({p.parts[0] for p in images.values()}) == 1 and all(len(p.parts) > 2 for p in images.values()):
        top = next(iter(images.values())).parts[0]
        skipped.append(f"everything in the archive is in one folder, {top!r}, which was skipped")
        images = {name: PurePosixPath(*p.parts[1:]) for name, p in images.items()}
    by_name = sorted((printable(str(p)), name) for name, p in images.items())
    kept, labels, parts, notes = _by_folders([name for name, _ in by_name], str(path))
    positions = {by_name[k][1]: position for position, k in enumerate(kept)}
    files = Files(
        [by_name[k][0] for k in kept],
        sum(sizes[name] for name in positions),
        _stamp(path),
        lambda: read(positions),
    )
    return Listing(files, labels, parts, {}, [*skipped, *notes, *_ignored_note(ignored)])


def _stamp(path: Path) -> str:
    facts = path.stat()
    return digest(repr((str(path.resolve()), facts.st_size, facts.st_mtime_ns)).encode()).hex()


def _by_folders(names: Sequence[str], where: str) -> tuple[list[int], list[str], list[str | None], list[str]]:
    """Labels and parts from the folders in the images' names.

    Returns the positions of the images in a class folder, their labels and parts, and notes.
    """
    split = [name.split("/") for name in names]
    tops = {parts[0] for parts in split if len(parts) > 1}
    named = {top for top in tops if top.lower() in PARTS}
    if named and tops != named:
        others = ", ".join(sorted(tops - named)[:5])
        raise DataError(
            f"{where} has folders for parts ({', '.join(sorted(named))}) and others beside them ({others}); "
            "which are the classes?"
        )
    if named and "train" not in {PARTS[top.lower()] for top in named}:
        raise DataError(
            f"{where} has folders for parts ({', '.join(sorted(named))}), and none of them is `train`"
        )
    depth = 1 if named else 0
    kept = [k for k, parts in enumerate(split) if len(parts) > depth + 1]
    if not kept:
        hint = (
            "each class needs a folder of image files"
            if names
            else f"image files end in {', '.join(sorted(SUFFIXES))}"
        )
        raise DataError(f"{where} holds {len(names)} image files, none of them in a class folder; {hint}")
    stray = len(names) - len(kept)
    notes = [f"{stray} image files that are not in a class folder were left out"] if stray else []
    labels = [split[k][depth] for k in kept]
    return kept, labels, [PARTS[split[k][0].lower()] if named else None for k in kept], notes


def _of_table(path: Path) -> Listing:
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    columns = list(rows[0][1]) if rows else []
    _check_rows(path, rows)
    rows.sort(key=lambda row: row[1]["path"])
    paths = [path.parent / row["path"] for _, row in rows]
    stats = [_size_and_time(p) for p in paths]
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


def _size_and_time(file: Path | os.DirEntry[str]) -> tuple[int, int]:
    try:
        facts = file.stat()
    except OSError:  # reported when the file is decoded
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _csv_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The line number and the values by column of each row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            delimiter = max(",;\t", key=head.count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_columns(path, reader.fieldnames or [])
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: {'more' if None in row else 'fewer'} values than columns"
                    )
                rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
            _check_last_line(path, rows)
            return rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as a table of comma-separated values in UTF-8: {error}"
        ) from None


def _check_last_line(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
    """Raises DataError if a table ends without a line end, in the beginning of another row's label."""
    if not rows or path.read_bytes().endswith((b"\n", b"\r")):
        return
    line, last = rows[-1]
    labels = Counter(row["label"] for _, row in rows)
    longer = [label for label in labels if label != last["label"] and label.startswith(last["label"])]
    if labels[last["label"]] == 1 and longer:
        raise DataError(
            f"{path}:{line}: the last line has no end, and its label {last['label']!r} is the beginning of "
            f"{longer[0]!r}: the table is cut short"
        )


def _parquet_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{path}: reading parquet needs pyarrow; pip install 'stresslens[parquet]', "
            "or save the table as CSV"
        ) from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    _check_columns(path, table.column_names)
    return [
        (line, {k: "" if v is None else str(v).strip() for k, v in row.items()})
        for line, row in enumerate(table.to_pylist(), 1)
    ]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}: {closest(missing[0], list(columns))}; "
            "it needs path and label"
        )
    double = [name for name in dict.fromkeys(columns) if columns.count(name) > 1]
    if double:
        raise DataError(f"{path} has the column {double[0]!r} more than once")
    taken = [name for name in columns if name in ("file", "width", "height", "bytes")]
    if taken:
        raise DataError(f"{path}: the column {taken[0]!r} has the name of a measured column; rename it")


def _check_rows(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> None:
    """Raises DataError that lists every invalid row.

    A row is invalid without a path or a label, with an unknown part, or with a file that another
    row has.
    """
    seen: dict[str, tuple[int, str]] = {}
    wrong = []
    for line, row in rows:
        if not row["path"] or not row["label"]:
            wrong.append(f"{path}:{line}: no {'path' if not row['path'] else 'label'}")
            continue
        if "\0" in row["path"]:
            wrong.append(f"{path}:{line}: the path holds a zero byte")
        if row.get("group") == "":
            wrong.append(f"{path}:{line}: no group; a single image needs its own group")
        if "split" in row and row["split"].lower() not in PARTS:
            wrong.append(f"{path}:{line}: split {row['split']!r}: expected train, validation or test")
        first, label = seen.setdefault(os.path.normpath(row["path"]), (line, row["label"]))
        if first != line:
            how = "again" if label == row["label"] else f"as {row['label']!r} here and as {label!r}"
            wrong.append(f"{path}:{line}: {row['path']} is listed {how} in line {first}")
    if wrong:
        raise DataError("\n".join(wrong))
    if not rows:
        raise DataError(f"{path} lists no image")


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _ignored_note(ignored: Counter[str]) -> Iterable[str]:
    if ignored:
        kinds = ", ".join(f"{suffix or 'no suffix'} {n}" for suffix, n in ignored.most_common(5))
        yield f"{ignored.total()} files are not image files by their names and were left out ({kinds})"
