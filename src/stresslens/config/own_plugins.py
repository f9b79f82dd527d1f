"""Custom plug-ins of the user, a function in a Python file or an installed module: import,
source file and digest."""

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

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest


def own_plugins(values: Any) -> set[str]:
    """Every `file.py:function` and `package.module:function` in plain values, at any depth."""
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
    """The source file of a custom plug-in, `file.py:function` or `module:function`; None if
    there is none."""
    where = name.rpartition(":")[0]
    if where.endswith(".py"):
        return base / where if (base / where).is_file() else None
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def source_digests(values: Any, *, base: Path) -> list[str]:
    """The digests of the source files of all custom plug-ins in plain values: 8 hexadecimal digits
    of SHA-256 each, sorted."""
    files = {source_of(name, base=base) for name in own_plugins(values)} - {None}
    return sorted(hashlib.sha256(file.read_bytes()).hexdigest()[:8] for file in files if file is not None)


def load_own_plugin(name: str, base: Path, *, kind: str, words: Sequence[str]) -> Callable[..., Any]:
    """Imports the function of a custom plug-in, `file.py:function` (relative to `base`) or
    `module:function`.

    `kind` is the plug-in's kind for messages ("a model"). `words` are the positional parameters
    that a plug-in of this kind may have. Raises ConfigError where the function cannot be imported
    or its signature does not fit.
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
    candidate = getattr(module, function, None)
    if not inspect.isfunction(candidate):
        functions = [
            n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__
        ]
        raise ConfigError(f"{where} defines no function {function!r}; {closest(function, functions)}")
    try:
        parameters = inspect.signature(candidate, eval_str=True).parameters.values()
    except Exception as error:
        raise ConfigError(
            f"{name!r}: its annotations cannot be read ({type(error).__name__}: {error})"
        ) from None
    variadic = [p.name for p in parameters if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unannotated = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.annotation is p.empty]
    if variadic or unannotated:
        what = (
            f"{variadic[0]} is neither a plain parameter nor an option after *"
            if variadic
            else f"the option {unannotated[0]} has no annotation"
        )
        raise ConfigError(f"{name!r}: {what}")
    unknown = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD and p.name not in words]
    if unknown:
        allowed = ", ".join(words) or "none"
        raise ConfigError(
            f"{name!r} asks for {', '.join(unknown)}; {kind} may ask for: {allowed} (options after *)"
        )
    plugin: Callable[..., Any] = candidate
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
