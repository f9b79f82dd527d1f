"""Custom plug-ins of the user, a function in a Python file or an installed module: import,
source file and digest."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stresslens.config.class_plugins import function_of
from stresslens.core.errors import ConfigError
from stresslens.core.installation import is_installed
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
        return base / where if os.path.isfile(base / where) else None
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def model_file_at(file: str, base: Path) -> str:
    """Where a model's file lies: relative to `base` (the folder of a run, or of a study file) if it is
    there, else to the working folder."""
    path = Path(file).expanduser()
    return str(base / path if (base / path).exists() else path)


def source_digests(values: Any, *, base: Path) -> list[str]:
    """The digests of the source files of all custom plug-ins in plain values, and of the user's own
    files that they import: 8 hexadecimal digits of SHA-256 each, sorted."""
    sources = {source_of(name, base=base) for name in own_plugins(values)}
    files = {file.resolve() for file in sources if file is not None}
    return sorted(map(_digest, files.union(*map(imported_files, files))))


def imported_digests(file: Path) -> list[str]:
    """The digests of the user's own files that a file imports, sorted; equal files count once."""
    return sorted(set(map(_digest, imported_files(file))))


def imported_files(file: Path) -> dict[Path, str]:
    """The user's own Python files that a file imports, directly or through others, with the names of
    their modules. Imports by a computed name are not seen."""
    found: dict[Path, str] = {}
    waiting = [(file.resolve(), "")]
    while waiting:
        importing, package = waiting.pop()
        for name in _imports_of(importing, package):
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError, AttributeError):  # no module, but a name inside one
                continue
            if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
                continue
            path = Path(spec.origin).resolve()
            if path not in found and path != file.resolve() and not is_installed(str(path)):
                found[path] = name
                waiting.append((path, spec.parent or ""))
    return found


def _imports_of(file: Path, package: str) -> set[str]:
    """The full names of the modules that a file's import statements may mean."""
    try:
        return _imports_in(ast.parse(file.read_bytes()), package)
    except (OSError, SyntaxError, ValueError):  # reported when it is executed
        return set()


def _imports_in(tree: ast.AST, package: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join(filter(None, [*above, node.module]))
            names.update(filter(None, [module, *(f"{module}.{alias.name}" for alias in node.names)]))
    return {".".join(name.split(".")[:k]) for name in names for k in range(1, name.count(".") + 2)}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]


def load_own_plugin(
    name: str, base: Path, *, kind: str, words: tuple[str, ...], called: bool
) -> Callable[..., Any]:
    """Imports the function of a custom plug-in, `file.py:function` (relative to `base`) or
    `module:function`.

    `kind` is the plug-in's kind for messages ("a model"). `words` are the positional parameters
    that a plug-in of this kind may have. A class becomes a function (`class_plugins`); with `called`,
    its instances are called. Raises ConfigError where the function cannot be imported
    or its signature does not fit.
    """
    where, _, function = name.rpartition(":")
    if where.endswith(".py"):
        file = base / where
        if not os.path.isfile(file):  # no error for a name that no file can have
            raise ConfigError(f"{name!r}: there is no file {file}")
        module = module_of_file(file.resolve())
    else:
        try:
            _forget_if_changed(where)
            module = importlib.import_module(where)
        except Exception as error:
            raise ConfigError(
                f"{name!r}: cannot import {where or 'nothing'} ({type(error).__name__}: {error})"
                f"{_written_as_file(where, function, base)}"
            ) from None
    candidate = getattr(module, function, None)
    if inspect.isclass(candidate):
        try:
            made: Any = candidate
            candidate = function_of(made, words, called=called)
        except ConfigError as error:
            raise ConfigError(f"{name!r}: {error}") from None
    if not inspect.isfunction(candidate):
        raise ConfigError(
            f"{where} defines no function {function!r}; {closest(function, _defined_in(module))}"
        )
    try:
        parameters = evaluated_signature(candidate).parameters.values()
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


def evaluated_signature(function: Callable[..., Any]) -> inspect.Signature:
    """A function's signature with evaluated annotations. That of a positional parameter stays a text
    where it cannot be evaluated, as with a name that is imported for type checkers only."""
    names = inspect.unwrap(function).__globals__
    signature = inspect.signature(function)
    parameters = []
    for parameter in signature.parameters.values():
        if isinstance(annotation := parameter.annotation, str):
            try:
                annotation = eval(annotation, names)
            except Exception:
                if parameter.kind is parameter.KEYWORD_ONLY:
                    raise
        parameters.append(parameter.replace(annotation=annotation))
    return signature.replace(parameters=parameters)


def _defined_in(module: types.ModuleType) -> list[str]:
    """The names of a module's own functions and classes; those of a package may be from its modules."""
    own, is_package = module.__name__, hasattr(module, "__path__")
    made_in = {
        name: str(value.__module__)
        for name, value in vars(module).items()
        if inspect.isfunction(value) or inspect.isclass(value)
    }
    return [name for name, at in made_in.items() if at == own or (is_package and at.startswith(f"{own}."))]


_loaded: dict[str, dict[Path, str]] = {}
"""The digests of the files that each plug-in's module was loaded from, its own first."""


def _forget_if_changed(where: str) -> None:
    """Lets the next import of a module execute it anew if its file, or one that it imports, has changed
    since it was loaded as a plug-in."""
    file = source_of(f"{where}:", base=Path())
    if file is None or is_installed(str(file)):
        return
    imported = imported_files(file)
    digests = {path: _digest(path) for path in (file.resolve(), *imported)}
    if _loaded.setdefault(where, digests) != digests:
        for name in (where, *imported.values()):
            sys.modules.pop(name, None)
        for path in digests:
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        importlib.invalidate_caches()
        _loaded[where] = digests


def module_of_file(file: Path) -> types.ModuleType:
    """The module of a user's file, given by its absolute path; executed anew if the file, or one that it
    imports, has changed. Raises ConfigError where it cannot be run."""
    name = f"own_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    imported = imported_files(file)
    digests = {path: _digest(path) for path in (file, *imported)}
    if name in sys.modules and _loaded.get(name) == digests:
        return sys.modules[name]
    if name in _loaded:
        for path, helper in imported.items():
            sys.modules.pop(helper, None)
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        importlib.invalidate_caches()
    module = types.ModuleType(name)
    module.__file__, module.__package__ = str(file), ""
    sys.modules[name] = module
    try:
        exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), vars(module))
        if beside := _imported_beside(file):  # in a function, which is called when the work has begun
            raise ModuleNotFoundError(f"No module named {beside.stem!r}")
    except Exception as error:
        sys.modules.pop(name)
        alone = f". {_alone(file)}" if isinstance(error, ImportError) and _is_about_files(error, file) else ""
        raise ConfigError(f"{file} cannot be run: {type(error).__name__}: {error}{alone}") from error
    _loaded[name] = {path: _digest(path) for path in (file, *imported_files(file))}
    return module


def _alone(file: Path) -> str:
    """What to do where a plug-in's file imports what is not found."""
    beside = _imported_beside(file)
    what = f"without {beside.name} beside it" if beside else "without other files of your own"
    return (
        f"A plug-in is one file, which is copied into the run and opened again {what}. Put all that it needs "
        "into this file, or install a package and name the plug-in package.module:function"
    )


def _is_about_files(error: ImportError, file: Path) -> bool:
    """Whether a module was not found, and not a name or a shared library inside one."""
    return isinstance(error, ModuleNotFoundError) or _imported_beside(file) is not None


def _imported_beside(file: Path) -> Path | None:
    """A Python file or package in the folder of a plug-in's file that this imports, and that Python does
    not find, as relative imports never are; None if there is none. Imports in `try` and those for type
    checkers are not meant."""
    try:
        tree = _WithoutTypeChecking().visit(ast.parse(file.read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return None
    tried = [_imports_in(node, "") for node in ast.walk(tree) if isinstance(node, ast.Try)]
    relative = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    near = set().union(*(_imports_in(node, "") for node in relative))
    for name in sorted(_imports_in(tree, "").difference(*tried)):
        top = name.strip(".").partition(".")[0]
        paths = [file.with_name(f"{top}.py"), *sorted(file.with_name(top).glob("*.py"))] if top else []
        found = next((path for path in paths if path.is_file() and path != file), None)
        if found and (name in near or not _is_importable(top)):
            return found if found.stem == top else found.parent
    return None


class _WithoutTypeChecking(ast.NodeTransformer):
    """Leaves out what `if TYPE_CHECKING:` guards, which is never executed."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
        return self.generic_visit(node)


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _written_as_file(where: str, function: str, base: Path) -> str:
    """A hint for a module that Python does not find, but that is a file in the working folder."""
    if not all(part.isidentifier() for part in where.split(".")):
        return ""
    file = where.replace(".", "/") + ".py"
    return f"; did you mean {file}:{function}?" if os.path.isfile(base / file) else ""
