"""Names of runs: of their folders, which are short and safe on every file system, and short ones for
titles, legends and sentences, which leave out what all runs of a page share."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresslens.config import registry

LONGEST = 80
"""The most bytes of a folder's name."""
LABEL = 28
"""The most bytes of a label."""
READABLE = 56
"""The most characters of a short name."""
OF_A_GRID = 24
"""A longer name that a grid made gives its values alone."""
DIGITS = 6
"""Hexadecimal digits of the digest that stands for what a name leaves out."""


def safe(name: str) -> str:
    """The name with `_` for everything that some file system or shell does not take as it is."""
    return re.sub(r"[^\w.,=+-]+", "_", name).lstrip(".") or "_"


def folder_name(name: str, overrides: Sequence[str] = ()) -> str:
    """The name of a variant's folder: its name and the overrides. An override with characters that a
    folder's name cannot hold ends with a digest of it, and a name that is cut with one of the whole."""
    parts = [text if safe(text) == text else _with_digest(_slug(text), text) for text in overrides]
    short = safe(",".join(filter(None, [name, *parts])))
    return short if len(short.encode()) <= LONGEST else _with_digest(short, ",".join([name, *overrides]))


def kept_name(name: str, overrides: Sequence[str] = ()) -> str:
    """The name of a variant's folder in versions up to 0.3.0."""
    return safe(f"{name}{''.join(f',{text}' for text in overrides)}")


def data_and_model(data: Any, model: Any) -> list[str]:
    """Short, safe names of a data set and of a model or estimator, as a configuration has them. A
    data set with a path and no other options is called like the end of its path."""
    path = _only_path(data)
    if path is None:
        return [label(data), label(model)]
    is_plain = str(path) == path.name and path.name not in registry.all_names("datasets")
    return [label(path.name) if is_plain else _with_digest(_slug(path.name), str(path), LABEL), label(model)]


def name_in_words(data: Any, model: Any, overrides: Sequence[str]) -> str:
    """A name of a run for people: `digits mlp epochs=1 lr=0.01`."""
    path = _only_path(data)
    of_data = value_in_words(data) if path is None else path.name
    return " ".join([of_data, value_in_words(model), *map(_shortened, overrides)])


def _only_path(data: Any) -> Path | None:
    """The path of a data set that has no other options; None for another one."""
    options = next(iter(data.values()), None) if isinstance(data, Mapping) and len(data) == 1 else None
    if not isinstance(options, Mapping) or set(options) != {"path"}:
        return None
    return Path(str(options["path"]))


def label(value: Any) -> str:
    """A short, safe name for a value of a configuration: a plug-in, a plug-in with options."""
    text = value if isinstance(value, str) else value_in_words(value)
    short = _slug(text).replace("=", "-")
    if short == text and len(short.encode()) <= LABEL:
        return short
    return _with_digest(short, value if isinstance(value, str) else json.dumps(value, sort_keys=True), LABEL)


def value_in_words(value: Any) -> str:
    """A value in words: `mlp widths=[32, 16]` for `{mlp: {widths: [32, 16]}}`."""
    if not isinstance(value, Mapping):
        return str(value)
    return " ".join(
        f"{name} {' '.join(f'{k}={v}' for k, v in (options or {}).items())}"
        if options is None or isinstance(options, Mapping)
        else f"{name}={options}"
        for name, options in value.items()
    )


def _slug(text: str) -> str:
    return re.sub(r"_*([=,])_*", r"\1", safe(text)).strip("_,.") or "_"


def _with_digest(short: str, whole: str, longest: int = LONGEST) -> str:
    digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()[:DIGITS]
    cut = short.encode()[: longest - DIGITS - 1].decode(errors="ignore").rstrip("_.,=-")
    return f"{cut}-{digest}"


@dataclass(frozen=True)
class ShortNames:
    """The names of the variants of one study for titles, legends and sentences, by the names of their
    folders; and the overrides that all of them share, which the names leave out."""

    names: Mapping[str, str]
    shared: Sequence[str] = ()
    keys: Sequence[str] = ()
    """The keys of the values that stand in the names alone."""

    def get(self, name: str) -> str:
        return self.names.get(name, name)

    def replaced(self, value: Any) -> Any:
        """Plain values with the short names instead of the folders' names, also inside sentences and
        as keys."""
        longer = [name for name, short in self.names.items() if name != short]
        if not longer:
            return value
        pattern = _any_of(longer)
        return _replaced(value, lambda text: pattern.sub(lambda found: self.names[found[0]], text))


def names_in(text: str, names: Sequence[str]) -> set[str]:
    """Those of the names of variants that a sentence has; a name that begins another one is not meant by
    it."""
    return set(_any_of(names).findall(text))


def _any_of(names: Sequence[str]) -> re.Pattern[str]:
    longest = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w.,=+-])(?:{'|'.join(map(re.escape, longest))})(?![\w=+-]|[.,]\w)")


def short_names(
    folders: Sequence[str],
    own_names: Mapping[str, str] = {},
    overrides: Mapping[str, Sequence[str]] = {},
) -> ShortNames:
    """Short names of variants by the names of their folders: the name in the study file and those of
    the overrides that not all share. Long names that a grid made have their values alone. A name that
    is still long is cut, and a digest tells it from others. `own_names` and `overrides` are those of
    study.json; where these lack a folder, its name is taken apart."""
    parts = {folder: _parts(folder, own_names.get(folder), overrides.get(folder)) for folder in folders}
    shared = [text for text in next(iter(parts.values()), ("", []))[1] if _in_all(text, parts)]
    own = {folder: name for folder, (name, _) in parts.items()}
    keys = _keys_of_a_grid(list(own.values())) if folders and own.keys() <= own_names.keys() else []
    if keys:
        own = {folder: ", ".join(map(_value, name.split(","))) for folder, name in own.items()}
    whole = {
        folder: " ".join([own[folder], *(_shortened(text) for text in texts if text not in shared)])
        for folder, (_, texts) in parts.items()
    }
    times = Counter(whole.values())
    names = {
        folder: name if len(name) <= READABLE and times[name] == 1 else _cut(name, folder)
        for folder, name in whole.items()
    }
    return ShortNames(names, shared, keys)


def _keys_of_a_grid(names: Sequence[str]) -> list[str]:
    """The keys of `key=value,key=value`, if all names have the same ones and a name is long."""
    keys = {tuple(_key(part) for part in name.split(",")) for name in names}
    is_grid = len(keys) == 1 and max(map(len, names)) > OF_A_GRID
    return [key for key in keys.pop() if key] if is_grid else []


def _key(part: str) -> str:
    found = re.match(r"[\w.]+(?==)", part)
    return found[0] if found else ""


def _value(part: str) -> str:
    return part.removeprefix(f"{_key(part)}=")


def _cut(name: str, folder: str) -> str:
    """A name with a digest of its folder's; of a long one the first and the last words."""
    digest = hashlib.sha256(folder.encode(errors="surrogatepass")).hexdigest()[:DIGITS]
    if len(name) > READABLE - DIGITS - 2:
        room = (READABLE - DIGITS - 5) // 2
        first = name[: room + 1].rpartition(" ")[0] or name[:room]
        last = name[-room - 1 :].partition(" ")[2] or name[-room:]
        name = f"{first} … {last}"
    return f"{name} #{digest}"


def _parts(folder: str, own: str | None, overrides: Sequence[str] | None) -> tuple[str, list[str]]:
    """The own name of a variant, and its overrides, of which a folder called by its own name has
    none."""
    if own == folder:
        return own, []
    if own is not None and overrides is not None:
        return own, list(overrides)
    words = folder.split(",")
    if own is not None and folder.startswith(f"{own},"):
        words = [own, *folder.removeprefix(f"{own},").split(",")]
    first = next((k for k, word in enumerate(words) if k and "." in word.partition("=")[0]), len(words))
    texts: list[str] = []
    for word in words[first:]:
        if "=" in word or not texts:
            texts.append(word)
        else:
            texts[-1] += f",{word}"
    return own or ",".join(words[:first]), texts


def _in_all(text: str, parts: Mapping[str, tuple[str, list[str]]]) -> bool:
    return all(text in texts for _, texts in parts.values())


def _shortened(override: str) -> str:
    """`epochs=2` for `train.epochs=2`."""
    key, equals, value = override.partition("=")
    return f"{key.rpartition('.')[2]}{equals}{value}"


def _replaced(value: Any, replace: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, Mapping):
        return {replace(key): _replaced(each, replace) for key, each in value.items()}
    return [_replaced(each, replace) for each in value] if isinstance(value, list | tuple) else value
