"""Which Python files are of the installation: Python itself, installed packages and stresslens. All
others are the user's own.

Packages may be installed elsewhere too: Colab has `dist-packages`, and a path file or PYTHONPATH can
add the packages of another environment.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import cache
from pathlib import Path

FOLDERS = tuple(
    str(Path(path).resolve())
    for path in (
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        *(path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")),
        str(Path(__file__).parents[1]),
    )
)


@cache
def is_installed(file: str) -> bool:
    """Whether a file, as code objects name it, is of the installation. Code that was typed into a
    session ("<stdin>") is not."""
    if file.startswith("<"):
        return file.startswith("<frozen")
    path = str(Path(file).resolve())
    return any(path.startswith(f"{folder}{os.sep}") for folder in FOLDERS)
