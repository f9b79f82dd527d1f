"""The user's own plug-ins: a function in a file or a module of theirs, its import, its file and what
tells the content of that file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from stresslens.core.errors import ConfigError, closest


def own_plugins(values: Any) -> set[str]:
    """Every `file.py:function` and `package.module:function` in plain values, wherever it stands."""
    if isinstance(values, Mapping):
        return set().union(*(own_plugins(part) for item in values.items() for part in item))
    if isinstance(values, list | tuple):
        return set().union(*(own_plugins(item) for item in values))
    return (
        {values}
        if isinstance(values, str) and re.fullmatch(r".+\.py:\w+|[A-Za-z_][\w.]*:[A-Za-z_]\w*", values)
        else set()
    )


def source_of(name: str, *, base: Path) -> Path | None:
    """The file of a user's own plug-in, `file.py:function` or `module:function`; None if there is none."""
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return base / where if (base / where).is_file() else None
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def source_digests(values: Any, *, base: Path) -> list[str]:
    """What tells the content of the files of the user's own plug-ins in plain values; none where
    there are none."""
    files = {source_of(name, base=base) for name in own_plugins(values)} - {None}
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest()[:8] for file in files if file is not None)


def load_own_plugin(name: str, base: Path, *, kind: str, words: Sequence[str]) -> Callable[..., Any]:
    """The user's own function, `file.py:function` (relative to `base`) or `module:function`.

    Raises ConfigError for one that cannot be imported, or whose signature is no plug-in's: `kind` is
    what it is to be ("a model"), `words` what it may ask for.
    """
    where, _, function = name.rpartition(":")
    if where.endswith(".py"):
        file = base / where
        if not file.is_file():
            raise ConfigError(f"{name!r}: there is no file {file}")
        module = _module(file.resolve())
    else:
        try:
            module = importlib.import_module(where)
        except Exception as error:
            raise ConfigError(
                f"{name!r}: cannot import {where or 'nothing'} ({type(error).__name__}: {error})"
            ) from None
    found = getattr(module, function, None)
    if not inspect.isfunction(found):
        functions = [
            n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__
        ]
        raise ConfigError(f"{where} defines no function {function!r}; {closest(function, functions)}")
    try:
        parameters = inspect.signature(found, eval_str=True).parameters.values()
    except Exception as error:
        raise ConfigError(
            f"{name!r}: its annotations cannot be read ({type(error).__name__}: {error})"
        ) from None
    odd = [p.name for p in parameters if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    bare = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.annotation is p.empty]
    if odd or bare:
        what = (
            f"{odd[0]} is neither a plain parameter nor an option after *"
            if odd
            else f"the option {bare[0]} has no annotation"
        )
        raise ConfigError(f"{name!r}: {what}")
    alien = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD and p.name not in words]
    if alien:
        allowed = ", ".join(words) or "none"
        raise ConfigError(
            f"{name!r} asks for {', '.join(alien)}; {kind} may ask for: {allowed} (options after *)"
        )
    plugin: Callable[..., Any] = found
    return plugin


@cache
def _module(file: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"own_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}", file
    )
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    return module
