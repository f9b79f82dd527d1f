"""Names of runs: of their folders, which are short and safe on every file system, and short ones for
titles, legends and sentences, which leave out what all runs of a page share."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stresslens.config import registry

LONGEST = 80
"""The most bytes of a folder's name."""
LABEL = 28
"""The most bytes of a label."""
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
    options = next(iter(data.values()), None) if isinstance(data, Mapping) and len(data) == 1 else None
    if not isinstance(options, Mapping) or set(options) != {"path"}:
        return [label(data), label(model)]
    path = Path(str(options["path"]))
    is_plain = str(path) == path.name and path.name not in registry.names("datasets")
    return [label(path.name) if is_plain else _with_digest(_slug(path.name), str(path), LABEL), label(model)]


def label(value: Any) -> str:
    """A short, safe name for a value of a configuration: a plug-in, a plug-in with options."""
    text = value if isinstance(value, str) else value_in_words(value)
    short = _slug(text)
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
    digest = hashlib.sha256(whole.encode()).hexdigest()[:DIGITS]
    cut = short.encode()[: longest - DIGITS - 1].decode(errors="ignore").rstrip("_.,=-")
    return f"{cut}-{digest}"
