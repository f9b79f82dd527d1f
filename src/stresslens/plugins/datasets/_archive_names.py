"""Names of members of zip and tar archives, as people read them: with slashes, in their encoding."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable

from stresslens.core.errors import ConfigError, DataError

UTF_8 = 0x800
"""The flag of a member whose name is UTF-8."""


def with_slashes(name: str) -> str:
    """A name in an archive that was made on Windows, with `/` between its folders."""
    return name.replace("\\", "/")


def is_folder(member: zipfile.ZipInfo) -> bool:
    """Whether a member of a zip is a folder, also one of Windows, whose name ends in a backslash."""
    return member.is_dir() or (member.filename.endswith("\\") and member.file_size == 0)


def zip_names(members: Iterable[zipfile.ZipInfo], encoding: str | None) -> tuple[dict[str, str], list[str]]:
    """The name of each member by its name in the archive, and notes.

    Names without the flag of UTF-8 are read in `encoding`, or else as UTF-8, or else in cp437, which the
    format has by default. Raises ConfigError for an unknown encoding, and DataError for names that are
    not in it.
    """
    shown, guessed = {}, []
    for member in members:
        name = member.filename
        if not member.flag_bits & UTF_8 and not name.isascii():
            raw = name.encode("cp437")
            try:
                name = raw.decode(encoding or "utf-8")
            except LookupError:
                raise ConfigError(
                    f"encoding: there is no {encoding!r}; utf-8, cp1252 and cp932 are some"
                ) from None
            except UnicodeError as error:
                if encoding is not None:
                    raise DataError(f"{name!r} in the archive is no {encoding}: {error}") from None
                guessed.append(name)
        shown[member.filename] = with_slashes(name)
    notes = (
        [
            f"{len(guessed)} names in the archive do not say their encoding and were read as cp437 "
            f"({guessed[0]}); where they look wrong, set `encoding` (cp1252 or cp850 for Western Europe, "
            "cp932 for Japanese, gbk for Chinese)"
        ]
        if guessed
        else []
    )
    return shown, notes
