"""The files of a folder that can hold parts or claims, and the folders that hold none of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stresslens.core.text import counted, enumeration

SUFFIXES = (".ipynb", ".py", ".md", ".csv")
FOREIGN = ("node_modules", "site-packages", "__pycache__", "checkpoints")
"""Names of folders whose files nobody wrote for a lab; hidden folders are others."""
MARKS = ("pyvenv.cfg", "conda-meta", "record.json", "study.json")
"""What lies in an environment, in the folder of a run, or in that of a study."""


@dataclass(frozen=True)
class LabFiles:
    """The files to look at, the folders that are left out, and in words which cannot be opened."""

    files: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def said(self, folder: Path) -> str:
        """`looked at 2 files (a.ipynb, week 3/own.py), left out .venv and runs/lab-a`."""
        files, left_out = (
            [path.relative_to(folder).as_posix() for path in paths] for paths in (self.files, self.left_out)
        )
        return (
            f"looked at {counted(len(files), 'file')}"
            + (f" ({enumeration(files)})" if files else "")
            + (f", left out {enumeration(left_out)}" if left_out else "")
        )


def files_of(path: Path) -> LabFiles:
    """The file itself, or a folder's files of the `SUFFIXES`, by name, also those in its folders.

    Folders that are hidden, links, environments, runs or studies are left out, and so are those in
    `FOREIGN`.
    """
    found = LabFiles()
    if path.is_file():
        found.files.append(path)
    else:
        _walk(path, found)
    return found


def _walk(folder: Path, found: LabFiles) -> None:
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        found.problems.append(f"{folder} cannot be read: {error.strerror}")
        return
    for path in inside:
        if path.is_dir():
            if _is_foreign(path):
                found.left_out.append(path)
            else:
                _walk(path, found)
        elif path.suffix in SUFFIXES and not path.name.startswith("."):
            found.files.append(path)


def _is_foreign(folder: Path) -> bool:
    name = folder.name
    return (
        name.startswith(".")
        or name in FOREIGN
        or folder.is_symlink()
        or any((folder / mark).exists() for mark in MARKS)
    )
