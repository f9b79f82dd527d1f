"""Digests of a module by all that its answers can depend on: two modules with the same digest
compute the same function.

Covered are parameters, buffers, hooks, modes, and every attribute of every submodule, at any depth:
tensors, arrays, numbers, text, containers, objects, and functions with their code, closures, defaults
and the global names that they read. The user's own classes and functions count by their content;
those of installed packages by their name. An object that cannot be looked into (a lock, an object of a
C library) counts by its type; `ModuleDigest.opaque` names it.
"""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import inspect
import logging
import re
import sys
import types
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.class_names import CLASS_NAMES
from stresslens.core.installation import is_installed

STANDARD = sys.stdlib_module_names - {"__main__"}
"""Packages of the standard library; some have no file."""

WITHOUT_EFFECT = {
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__qualname__",
    "__annotations__",
    "__annotate_func__",
    "__annotations_cache__",
    "__slotnames__",  # a cache of copyreg, made by the first copy of an object
    "__firstlineno__",
    "__static_attributes__",
    "__abstractmethods__",
    "_abc_impl",
    "_compiled_call_impl",
    CLASS_NAMES,
}
"""Attributes of classes and modules that no answer depends on."""


@dataclass(frozen=True)
class ModuleDigest:
    """The parts of a module by name, each with its digest, and the types that could not be looked
    into."""

    parts: Mapping[str, str]
    opaque: tuple[str, ...]

    def without(self, names: Iterable[str]) -> ModuleDigest:
        """The digest without some parts."""
        left = {name: part for name, part in self.parts.items() if name not in set(names)}
        return ModuleDigest(left, self.opaque)

    def changed_since(self, earlier: ModuleDigest) -> set[str]:
        """The names of the parts that differ."""
        names = self.parts.keys() | earlier.parts.keys()
        return {name for name in names if self.parts.get(name) != earlier.parts.get(name)}

    def text(self, digits: int = 16) -> str:
        """Hexadecimal digits of SHA-256."""
        return hashlib.sha256(repr(sorted(self.parts.items())).encode()).hexdigest()[:digits]


def digest_of(module: nn.Module) -> ModuleDigest:
    """The digest of a module as it is now. Nothing is called and nothing is changed."""
    reader = _Reader()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is old warns where it is only looked at
        parts = reader.parts_of(module)
        parts.update(reader.of_globals())
    return ModuleDigest(parts, tuple(sorted(reader.opaque)))


def _unnumbered(name: str, value: Any) -> Any:
    """Hooks without their numbers, which count all hooks of a process."""
    hooks = name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called"))
    return list(value.values()) if hooks and isinstance(value, Mapping) else value


def _script(module: torch.jit.ScriptModule) -> list[Any]:
    """The program of a scripted module: its graph, without places in source files and numbers that
    keep names apart, its attributes (parameters and buffers too) and its constants."""
    try:
        graph = re.sub(r"___torch_mangle_\d+\.| #[^\n]*", "", str(module.inlined_graph))
        constants = dict(module.code_with_constants[1].const_mapping)
    except RuntimeError:  # without a forward method
        graph, constants = "", {}
    names = sorted(module._concrete_type.get_attributes())
    return [graph, constants, {name: module._c.getattr(name) for name in names}]


def _is_library(thing: Any) -> bool:
    """Whether a class, a function or a module is of Python, of an installed package or of
    stresslens."""
    if isinstance(thing, types.FunctionType):
        return is_installed(thing.__code__.co_filename)
    module = thing if isinstance(thing, types.ModuleType) else sys.modules.get(thing.__module__ or "")
    if module is None or module.__name__ == "__main__":
        return False
    file = getattr(module, "__file__", None)
    return module.__name__.partition(".")[0] in STANDARD if file is None else is_installed(file)


@dataclass
class _Reader:
    """Reads values to digests. A value that contains itself counts there by its place."""

    opaque: set[str] = field(default_factory=set)
    places: dict[int, int] = field(default_factory=dict)
    """The values that are being read, by id, with their depth."""
    known: dict[int, tuple[Any, str]] = field(default_factory=dict)
    """The values that were read, by id, with their digests; they are kept alive, so that no other gets
    their id."""
    global_values: dict[str, list[tuple[types.FunctionType, str]]] = field(default_factory=dict)

    def of(self, value: Any) -> str:
        """The digest of a value."""
        if (plain := _plain(value)) is not None:
            return _hash(type(value).__name__, plain)
        if id(value) in self.places:
            return f"the value {len(self.places) - self.places[id(value)]} above"
        if id(value) in self.known:
            return self.known[id(value)][1]
        self.places[id(value)] = len(self.places)
        try:
            found = _hash(*self._parts(value))
        except Exception:  # an object of the user's may raise anything when it is looked at
            found = self._opaque(value)
        finally:
            del self.places[id(value)]
        self.known[id(value)] = (value, found)
        return found

    def parts_of(self, module: nn.Module) -> dict[str, str]:
        """The digests of a module and its submodules, by the path of the attribute."""
        parts = {"modules": self.of([path for path, _ in module.named_modules(remove_duplicate=False)])}
        for path, part in module.named_modules():
            parts[f"{path}:class"] = self.of(type(part))
            if isinstance(part, torch.jit.ScriptModule):
                parts[f"{path}:script"] = self.of(_script(part))
                continue
            if type(part).__name__ == "OptimizedModule" and _is_library(type(part)):
                continue  # of torch.compile: the module is the submodule _orig_mod
            for name, value in vars(part).items():
                if name in ("_parameters", "_buffers"):
                    parts.update({f"{path}.{key}": self.of(tensor) for key, tensor in value.items()})
                elif name not in WITHOUT_EFFECT and name != "_modules":
                    parts[f"{path}.{name}"] = self.of(_unnumbered(name, value))
        return parts

    def of_globals(self) -> dict[str, str]:
        """The digests of the global values that the functions read so far refer to, by name."""
        read: dict[str, set[str]] = {}
        done: set[tuple[int, str]] = set()
        while True:
            waiting = [
                (name, function)
                for name, users in self.global_values.items()
                for function, _ in users
                if (id(function.__globals__), name) not in done
            ]
            if not waiting:
                return {f"global {name}": _hash(*sorted(found)) for name, found in read.items()}
            for name, function in waiting:
                done.add((id(function.__globals__), name))
                if name in function.__globals__:
                    read.setdefault(name, set()).add(self.of(function.__globals__[name]))

    def _opaque(self, value: Any) -> str:
        self.opaque.add(f"{type(value).__module__}.{type(value).__qualname__}")
        return _hash("opaque", type(value).__qualname__)

    def _parts(self, value: Any) -> Iterable[str | bytes]:
        """What the digest of a value is made of."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray):
            values = [self.of(item) for item in value.flat] if value.dtype.hasobject else [_bytes_of(value)]
            masked = [self.of(value.mask)] if isinstance(value, np.ma.MaskedArray) else []
            return ["array", str(value.dtype), str(value.shape), *values, *masked]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, types.MethodType):
            return ["method", self.of(value.__self__), self.of(value.__func__)]
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            return ["builtin", value.__qualname__, *self._owner(value)]
        if isinstance(value, types.CellType):
            return ["cell", *([self.of(value.cell_contents)] if _is_filled(value) else [])]
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self.of(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self.of, (value.fget, value.fset))]
        if isinstance(value, functools.partial):
            return ["partial", *map(self.of, (value.func, value.args, value.keywords))]
        if isinstance(value, torch.Generator):
            return ["generator", self.of(value.get_state())]
        return self._container_or_object(value)

    def _container_or_object(self, value: Any) -> Iterable[str | bytes]:
        attributes = self._attributes(value)
        if isinstance(value, weakref.ref):
            return ["reference", self.of(value())]
        if isinstance(value, Mapping):
            attributes = [*attributes, self.of(getattr(value, "default_factory", None))]
            items = [part for key, item in value.items() for part in (self.of(key), self.of(item))]
            return ["mapping", type(value).__name__, *items, *attributes]
        if isinstance(value, set | frozenset):
            return ["set", type(value).__name__, *sorted(map(self.of, value)), *attributes]
        if isinstance(value, list | tuple):
            return ["list", type(value).__name__, *map(self.of, value), *attributes]
        if isinstance(value, logging.Logger):
            return ["logger", value.name]
        if isinstance(value, nn.Module):  # kept in a list or an object, so no submodule
            return ["module", repr(sorted(self.parts_of(value).items()))]
        in_c = any(map(_is_of_c, type(value).__mro__[:-1]))
        reduced = self._reduced(value) if in_c else []
        return ["object", self.of(type(value)), *attributes, *reduced]

    def _attributes(self, value: Any) -> list[str]:
        """The attributes of an object and their digests, those of `__slots__` too."""
        slots = [
            name
            for cls in type(value).__mro__
            for name in _names(vars(cls).get("__slots__", ()))
            if hasattr(value, name) and name not in WITHOUT_EFFECT
        ]
        own = {**{name: getattr(value, name) for name in slots}, **getattr(value, "__dict__", {})}
        return [part for name in sorted(own, key=str) for part in (str(name), self.of(own[name]))]

    def _reduced(self, value: Any) -> Iterable[str | bytes]:
        """An object of a C library, as pickle would take it apart."""
        try:
            reducer = copyreg.dispatch_table.get(type(value))
            reduced: Any = value.__reduce_ex__(4) if reducer is None else reducer(value)
        except Exception:  # a lock, an open file, a session: each refuses in its own way
            return [self._opaque(value)]
        if isinstance(reduced, str):
            return ["named", reduced]
        # An iterator over items of the value is read as a list.
        parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        return ["reduced", type(value).__qualname__, *map(self.of, parts)]

    def _tensor(self, value: Tensor) -> Iterable[str | bytes]:
        facts = [
            type(value).__qualname__,
            str(value.dtype),
            str(tuple(value.shape)),
            str(value.requires_grad),
        ]
        hooks = [self.of(hook) for hook in (value._backward_hooks or {}).values()]
        try:
            dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            dense = dense.dequantize() if dense.is_quantized else dense.resolve_conj().resolve_neg()
            content = dense.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        except (RuntimeError, NotImplementedError, TypeError):  # no values (meta), or no bytes
            return [*facts, *hooks, self._opaque(value)]
        return ["tensor", *facts, *hooks, _bytes_of(content)]

    def _function(self, function: types.FunctionType) -> Iterable[str | bytes]:
        """An installed function counts by its name, but what it closes over may be the user's."""
        closure = [self.of(cell) for cell in function.__closure__ or ()]
        defaults = [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        if _is_library(function):
            return ["function", _name_of(function), *closure, *defaults]
        for name in _globals_read(function.__code__):
            self.global_values.setdefault(name, []).append((function, name))
        return ["function", self.of(function.__code__), *closure, *defaults]

    def _code(self, code: types.CodeType) -> Iterable[str | bytes]:
        names = [*code.co_names, *code.co_varnames, *code.co_freevars, *code.co_cellvars]
        facts = [str(code.co_argcount), str(code.co_kwonlyargcount), str(code.co_flags)]
        return [code.co_code, *names, *facts, code.co_exceptiontable, *map(self.of, code.co_consts)]

    def _class(self, cls: type) -> Iterable[str | bytes]:
        parts = [cls.__qualname__]
        for base in cls.__mro__:
            if _is_library(base):
                parts.append(base.__qualname__)
                continue
            content = vars(base)
            for name in sorted(content.keys() - WITHOUT_EFFECT):
                if not isinstance(content[name], types.MemberDescriptorType | types.GetSetDescriptorType):
                    parts += [name, self.of(content[name])]
        return parts

    def _module(self, module: types.ModuleType) -> Iterable[str | bytes]:
        """A Python module: an installed one by its name, the user's own by its functions and values."""
        if _is_library(module):
            return ["library", module.__name__.partition(".")[0]]
        names = sorted(name for name in vars(module) if not (name.startswith("__") and name.endswith("__")))
        return ["own module", *(part for name in names for part in (name, self.of(vars(module)[name])))]

    def _owner(self, value: Any) -> list[str]:
        """The object whose method a builtin is; a Python module is none."""
        owner = getattr(value, "__self__", None)
        return [] if owner is None or isinstance(owner, types.ModuleType) else [self.of(owner)]


def _plain(value: Any) -> str | bytes | None:
    """The content of a value without parts; None for others."""
    if type(value) in (bool, int, float, complex, str, type(None), type(Ellipsis), type(NotImplemented)):
        return repr(value)
    if type(value) in (bytes, bytearray):
        return bytes(value)
    if isinstance(value, torch.dtype | torch.device | torch.memory_format | torch.layout | np.dtype | range):
        return repr(value)
    if isinstance(value, np.generic) and not value.dtype.hasobject:
        return str(value.dtype).encode() + value.tobytes()
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name} {value.value!r}"
    return None


def _hash(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode(errors="surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def _bytes_of(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _name_of(function: types.FunctionType) -> str:
    return f"{(function.__module__ or '').partition('.')[0]}.{function.__qualname__}"


def _names(slots: Any) -> Iterable[str]:
    return [slots] if isinstance(slots, str) else list(slots)


@functools.cache
def _is_of_c(cls: type) -> bool:
    """Whether a class is written in C, and may hold more than its attributes."""
    return any(
        isinstance(value, types.WrapperDescriptorType | types.MethodDescriptorType)
        for value in vars(cls).values()
    )


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def _globals_read(code: types.CodeType) -> tuple[str, ...]:
    """The global names that a function and the functions inside it read."""
    own = {
        str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    inner = [name for part in code.co_consts if inspect.iscode(part) for name in _globals_read(part)]
    return tuple(sorted({*own, *inner}))
