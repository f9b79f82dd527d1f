"""A function or a class of the caller's own, given where a plug-in is named, as a plug-in that has a
name: that of an importable one, or a file that is written with its source and all that it reads."""

from __future__ import annotations
import __future__

import ast
import atexit
import builtins
import functools
import hashlib
import importlib.util
import inspect
import linecache
import symtable
import sys
import tempfile
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.files import write_bytes

FOLDER = "functions"
"""The folder for the files, inside the one that results are written to."""
OF_BUILTINS = "torch.nn.functional"
"""The module, with those above it, in which functions of C without a module are looked up: `torch.exp`."""
FUTURE = __future__.annotations.compiler_flag


def with_names(values: Any, out: Path | None, place: str = "") -> Any:
    """The values with the name of a plug-in for each function and class in them, also for those that are
    keys of options: `{my_loss: {"weight": 2}}`. Their files are written into `out/functions`, without
    `out` into a temporary folder of this process. `place` is the key of the values, for messages.

    Raises ConfigError for a function whose source cannot be written down, and for an instance."""
    if isinstance(values, Mapping):
        return {
            _named(key, out, place) if callable(key) else key: with_names(each, out, _inside(place, key))
            for key, each in values.items()
        }
    if isinstance(values, list | tuple):
        return [with_names(each, out, place) for each in values]
    made = isinstance(values, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler)
    is_net = isinstance(values, nn.Module) and place.rpartition(".")[2] == "model"
    return _named(values, out, place) if (callable(values) or made) and not is_net else values


def _inside(place: str, key: Any) -> str:
    return ".".join(filter(None, [place, key if isinstance(key, str) else ""]))


@functools.cache
def _temporary() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="stresslens-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _named(value: Any, out: Path | None, place: str) -> str:
    """The name of a function or a class as a plug-in; where it cannot be imported, of its file."""
    if isinstance(value, functools.partial):
        raise ConfigError(
            f"{place} is a partial; give its function and the options: {{function: {{'option': value}}}}"
        )
    if not hasattr(value, "__qualname__"):
        kind = type(value).__name__
        raise ConfigError(
            f"{place} is an instance of {kind}; give its class and options: {{{kind}: {{'option': value}}}}"
        )
    if (name := _importable(value)) is not None:
        return name
    name = value.__name__
    try:
        content = _File().of(value).encode()
    except ConfigError as error:
        plain = name if name.isidentifier() else "my_function"
        raise ConfigError(
            f"{place}: {error}. Write it into a file and name it: 'my_file.py:{plain}'"
        ) from None
    digest = hashlib.sha256(content).hexdigest()[:8]  # a run's copy has it in its name too
    file = (out or _temporary()) / FOLDER / f"{name}-{digest}.py"
    if not file.is_file():
        write_bytes(file, content)
    return f"{file}:{name}"


def _importable(value: Any) -> str | None:
    """`torch.optim:SGD` for a class or a function of a module that can be imported."""
    module, name = getattr(value, "__module__", None) or OF_BUILTINS, value.__name__
    if module == "__main__":
        return None
    parts = module.split(".")
    for path in (".".join(parts[: k + 1]) for k in range(len(parts))):
        if getattr(sys.modules.get(path), name, None) is value and _is_module(path):
            return f"{path}:{name}"
    return None


def _is_module(path: str) -> bool:
    try:
        return importlib.util.find_spec(path) is not None
    except (ImportError, ValueError):
        return False


class _File:
    """The text of a file that defines a function or a class, and before it what that reads."""

    def __init__(self) -> None:
        self.first = ""
        self.imports: set[str] = set()
        self.texts: list[str] = []
        self.known: dict[str, Any] = {}
        """The values that the file has, by name."""

    def of(self, value: Any) -> str:
        """Raises ConfigError where the source is not there, or reads what cannot be written down."""
        self._define(value)
        imports = self.first + "\n".join(sorted(self.imports))
        return "\n\n".join([imports, *self.texts]).lstrip() + "\n"

    def _define(self, value: Any) -> None:
        """Adds a function or a class, after what it reads."""
        self.known[value.__name__] = value
        functions = _functions_of(value)
        text = _source(value, functions)
        if functions[0].__code__.co_flags & FUTURE:
            self.first = "from __future__ import annotations\n"
        names = functions[0].__globals__
        for name in sorted(_names_read(text)):
            if name in names and not (name.startswith("__") and name.endswith("__")):
                self._read(name, names[name], value.__name__)
        self.texts.append(text)

    def _read(self, name: str, value: Any, by: str) -> None:
        """Adds a global value that a function reads."""
        if name in self.known:
            if self.known[name] is not value:
                raise ConfigError(f"two values that it reads are called {name}")
            return
        if getattr(builtins, name, None) is value:
            return
        self.known[name] = value
        if isinstance(value, types.ModuleType):
            self.imports.add(f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}"))
        elif (found := _importable(value) if hasattr(value, "__qualname__") else None) is not None:
            module, _, own = found.partition(":")
            self.imports.add(f"from {module} import {own}" + ("" if own == name else f" as {name}"))
        elif isinstance(value, types.FunctionType | type):
            if value.__name__ == name:
                self._define(value)
            else:
                self._read(value.__name__, value, by)
                self.texts.append(f"{name} = {value.__name__}")
        elif _is_literal(value):
            self.texts.append(f"{name} = {value!r}")
        else:
            raise ConfigError(
                f"{by} reads {name}, a {type(value).__name__} of this session, which cannot be written down"
            )


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except Exception:  # whatever the value's own repr and comparison raise
        return False


def _functions_of(value: Any) -> list[types.FunctionType]:
    """The function itself, or the methods that a class defines, without their decorators. Raises
    ConfigError where there are none written in Python, and for a function that closes over values."""
    if isinstance(value, type):
        candidates = [each for attribute in vars(value).values() for each in _undecorated(attribute)]
        within = f"{value.__qualname__}."  # the rest is what a decorator without functools.wraps returns
        functions = [each for each in candidates if each.__qualname__.startswith(within)]
    else:
        functions = _undecorated(value)
    own = [each for each in functions if each.__code__.co_filename != "<string>"]  # not of a dataclass
    if not own:
        raise ConfigError(f"the source of {value.__name__} is not there")
    if not isinstance(value, type) and own[0].__name__ == "<lambda>":
        raise ConfigError("a lambda cannot be written down; define it with def")
    inner = {name for each in own for name in each.__code__.co_freevars} - {"__class__"}
    if inner:
        raise ConfigError(f"{value.__name__} uses {', '.join(sorted(inner))} of the function around it")
    return own


def _undecorated(attribute: Any) -> list[types.FunctionType]:
    """The functions inside a function, a method or a property with decorators."""
    if isinstance(attribute, property):
        inner = [attribute.fget, attribute.fset, attribute.fdel]
    elif isinstance(attribute, functools.cached_property | functools.partialmethod):
        inner = [attribute.func]
    else:
        plain = inspect.unwrap(attribute)
        if isinstance(plain, types.FunctionType):
            return [plain]
        inner = []
    return [each for one in inner if one is not None for each in _undecorated(one)]


def _source(value: Any, functions: list[types.FunctionType]) -> str:
    """The source of a function or a class, with its decorators. Raises ConfigError where it is not there,
    or is not that of the code in memory."""
    code = functions[0].__code__
    lines = linecache.getlines(code.co_filename, functions[0].__globals__)
    try:
        tree = ast.parse(whole := "".join(lines))
    except SyntaxError:
        tree = ast.Module([], [])
    kind = ast.ClassDef if isinstance(value, type) else ast.FunctionDef
    for node in ast.walk(tree):
        if not isinstance(node, kind) or node.name != value.__name__:
            continue
        first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
        if not first <= code.co_firstlineno <= (node.end_lineno or first):
            continue
        text = textwrap.dedent("".join(lines[first - 1 : node.end_lineno])).rstrip()
        if all(
            any(_is_same(each.__code__, other) for other in _compiled(text, whole, code.co_flags & FUTURE))
            for each in functions
        ):
            return text
    raise ConfigError(f"the source of {value.__name__} is not there")


@functools.cache
def _compiled(text: str, whole: str, flags: int) -> list[types.CodeType]:
    """Every function of a definition that is compiled alone, as a notebook does, and of the whole file;
    the instructions depend on which names the same file imports."""
    parts = [compile(each, "", "exec", flags, dont_inherit=True) for each in (text, whole)]
    return [code for part in parts for code in _codes(part)]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield each
            yield from _codes(each)


def _is_same(one: types.CodeType, other: types.CodeType) -> bool:
    """Whether two functions have the same instructions, names and constants."""

    def facts(code: types.CodeType) -> list[Any]:
        plain = [repr(each) for each in code.co_consts if not isinstance(each, types.CodeType)]
        return [code.co_name, code.co_code, code.co_names, code.co_varnames, plain]

    inner = [each for each in one.co_consts if isinstance(each, types.CodeType)]
    others = [each for each in other.co_consts if isinstance(each, types.CodeType)]
    return facts(one) == facts(other) and len(inner) == len(others) and all(map(_is_same, inner, others))


def _names_read(text: str) -> set[str]:
    """The global names that a definition reads, annotations included."""
    annotations = [
        part
        for node in ast.walk(ast.parse(text))
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
    ]
    written = {each.id for part in annotations for each in ast.walk(part) if isinstance(each, ast.Name)}
    return written | set(_global_names(symtable.symtable(text, "", "exec")))


def _global_names(table: symtable.SymbolTable) -> Iterator[str]:
    of_module = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (of_module or symbol.is_global()):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _global_names(inner)
