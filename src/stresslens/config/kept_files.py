"""Files from which models are made: a run keeps a copy, by which it is opened and repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.config.own_plugins import model_file_at
from stresslens.config.trainable_models import is_trainable
from stresslens.core.errors import StresslensError
from stresslens.core.files import digest_of_file
from stresslens.core.types import ModelFile

FOLDER = "model"
"""The folder of the copies in a run's folder."""


@dataclass(frozen=True)
class KeptFile:
    """A file, or a folder, that a model is made from, with others that lie beside it."""

    given: str
    """As the configuration writes it."""
    path: Path
    files: tuple[Path, ...]
    """What is copied, `path` itself first where it is a file."""
    digest: str
    as_it_is: bool = False
    """Whether the model is computed from the file as it is, and is not trained."""

    @property
    def copy(self) -> str:
        """The path of the copy in the run's folder."""
        return f"{FOLDER}/{self.digest}/{self.path.name}"

    def copies(self) -> Iterator[tuple[Path, str]]:
        """Each file, and the path of its copy in the run's folder."""
        root = self.path.parent
        for file in self.files:
            yield file, f"{FOLDER}/{self.digest}/{file.relative_to(root).as_posix()}"


def kept_files(model: Any, *, base: Path) -> list[KeptFile]:
    """The files that a model's plain value names; those that are missing are left out, which the model
    itself reports."""
    name, options = registry.name_and_options("models", model)
    function = registry.plugin("models", name, base=base)
    found = []
    for option, parameter in registry.options_of(function).items():
        given = options.get(option)
        if parameter.annotation != ModelFile or not isinstance(given, str):
            continue
        path = Path(model_file_at(given, base))
        with suppress(StresslensError, OSError):
            beside = registry.bind("models", function, dict(options) | {option: str(path)})
            more = beside.answer_beside("files_beside") or []
            files = (*([path] if path.is_file() else []), *more)
            if files:
                fixed = not is_trainable(function)
                found.append(KeptFile(given, path.resolve(), _absolute(files), _digest(files), fixed))
    return found


def _absolute(files: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(file.resolve() for file in files)


def _digest(files: tuple[Path, ...]) -> str:
    parts = (f"{file.name} {digest_of_file(file)}" for file in files)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
