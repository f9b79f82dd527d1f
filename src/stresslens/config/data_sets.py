"""Data sets by name: the plug-in is called, and its labels are corrected where the study says so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, SizesDiffer
from stresslens.core.label_corrections import LabelCorrections, corrected_data


def loaded_data_set(
    value: Any, *, path: registry.Keys = (), base: Path | None = None, trust: bool = True
) -> Data:
    """The data set of `name` or `{name: {option: value}}`, with the corrections of its option
    `corrections`, which every data set has: a CSV file, relative to the working folder.

    Raises Problems for wrong options, ConfigError if the plug-in returns something else, and DataError as
    the data set and `corrected_data` do.
    """
    bound = registry.resolve("datasets", value, path=path, base=base, trust=trust)
    data = bound()
    if not isinstance(data, Data):
        raise ConfigError(f"the dataset {value} returned a {type(data).__name__}; expected a stresslens.Data")
    _, options = registry.name_and_options("datasets", value)
    own = "corrections" in registry.options_of(bound.function)
    file = None if own else options.get("corrections")
    return data if file is None else corrected_data(data, LabelCorrections.read(Path(file).expanduser()))


def data_set_of_one_size(
    value: Any, *, base: Path | None = None, size: tuple[int, int] | None = None
) -> tuple[Data, tuple[int, int] | None]:
    """As `loaded_data_set`. Images that differ in size are made `size` (height, width), or the size that
    suits them, which is returned too; None where they do not differ."""
    try:
        return loaded_data_set(value, base=base), None
    except SizesDiffer as differ:
        name, options = registry.name_and_options("datasets", value)
        wanted = size or (differ.proposed, differ.proposed)
        return loaded_data_set({name: {**options, "size": list(wanted)}}, base=base), wanted


def corrections_digest(value: Any) -> str:
    """A digest of the file of corrections that a data set's value names; empty where there is none."""
    options = next(iter(value.values()), None) if isinstance(value, Mapping) else None
    file = options.get("corrections") if isinstance(options, Mapping) else None
    if isinstance(file, str):
        with suppress(OSError, ValueError):
            return hashlib.sha256(Path(file).expanduser().read_bytes()).hexdigest()
    return ""
