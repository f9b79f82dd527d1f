"""Schemas of the arrays in run folders: the type, shape and range of each, and how their shapes agree.

Each file's schema is beside the code that writes the file; readers import it from there, as they
do the models of the JSON files (`core.json_file`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.files import UnreadableRun, read_arrays
from stresslens.core.types import Arrays

INTEGER, FLOAT, BOOL, TEXT = "iu", "f", "b", "U"
"""The kinds of numpy's dtypes. INTEGER + FLOAT takes either."""
KINDS = {"i": "integers", "u": "integers", "f": "floats", "b": "truth values", "U": "text"}


@dataclass(frozen=True)
class Form:
    """What an array holds: its kind, and its shape by names or sizes of dimensions.

    A name stands for the same size in all arrays of a file. `...` at the end stands for any further
    dimensions; a shape of None is any shape. `least` is the smallest value, `below` the dimension or
    the number that all values lie below.
    """

    kind: str
    shape: tuple[Any, ...] | None = None
    finite: bool = False
    nan: bool = True
    """Whether NaN may be among the values; `finite` forbids infinities too."""
    least: float | None = None
    below: str | int | None = None
    optional: bool = False
    """Whether a file of an earlier version may lack it."""


@dataclass(frozen=True)
class ArrayFile:
    """The schema of a file of arrays. `remedy` says how the file is made anew."""

    forms: Mapping[str, Form]
    remedy: str
    others: Form | None = None
    """The form of arrays with other names; None where these are not looked at."""

    def read(self, path: Path, absent: str | None = None, only: Sequence[str] | None = None) -> Arrays:
        """The arrays of a file, or `only` the named ones. Raises UnreadableRun if the file is missing,
        damaged, or of another form."""
        missing = absent if absent is not None else f"there is no {path}; {self.remedy}"
        try:
            arrays = read_arrays(path, missing, only)
        except UnreadableRun as error:
            if not path.exists():
                raise
            raise UnreadableRun(f"{error}; {self.remedy}") from error
        return self.checked(arrays, path, only)

    def checked(
        self, arrays: Mapping[str, NDArray[Any]], name: object, only: Sequence[str] | None = None
    ) -> Arrays:
        """The arrays, or of a file's arrays `only` the named ones, if they are of the schema's form;
        `name` is what an error calls the file."""
        looked_at = {*(self.forms if only is None else only), *(arrays if self.others is not None else ())}
        forms = {key: form for key in looked_at if (form := self.forms.get(key, self.others)) is not None}
        for problem in _problems(arrays, forms):
            raise UnreadableRun(f"{name} is damaged: {problem}; {self.remedy}")
        return dict(arrays)


def _problems(arrays: Mapping[str, NDArray[Any]], forms: Mapping[str, Form]) -> Iterator[str]:
    yield from (f"it has no array {key!r}" for key in forms if key not in arrays and not forms[key].optional)
    sizes: dict[str, int] = {}
    given = [(key, arrays[key], forms[key]) for key in sorted(forms) if key in arrays]
    for key, array, form in given:
        yield from _problem_of_form(key, array, form, sizes)
    for key, array, form in given:
        yield from _problem_of_values(key, array, form, sizes)


def _problem_of_form(key: str, array: NDArray[Any], form: Form, sizes: dict[str, int]) -> Iterator[str]:
    if array.dtype.kind not in form.kind:
        expected = " or ".join(dict.fromkeys(KINDS[kind] for kind in form.kind))
        yield f"{key} holds {KINDS.get(array.dtype.kind, str(array.dtype))}, expected {expected}"
    if form.shape is None:
        return
    given = form.shape[:-1] if form.shape[-1:] == (...,) else form.shape
    fits = len(array.shape) == len(given) or (given != form.shape and len(array.shape) > len(given))
    if not fits or any(
        size != (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
        for wanted, size in zip(given, array.shape)
    ):
        expected = ", ".join(str(sizes.get(d, d)) if d is not ... else "…" for d in form.shape)
        yield f"{key} has the shape {array.shape}, expected ({expected})"


def _problem_of_values(key: str, array: NDArray[Any], form: Form, sizes: Mapping[str, int]) -> Iterator[str]:
    if array.dtype.kind == "f" and not (form.nan and not form.finite):
        wrong = ~np.isfinite(array) if form.finite else np.isnan(array)
        if wrong.any():
            yield f"{int(wrong.sum())} values of {key} are {'not finite' if form.finite else 'NaN'}"
    if array.dtype.kind in "iuf" and array.size:
        if form.least is not None and bool((array < form.least).any()):
            yield f"{key} holds {array.min()}, expected at least {form.least}"
        below = sizes.get(form.below) if isinstance(form.below, str) else form.below
        if below is not None and bool((array >= below).any()):
            yield f"{key} holds {array.max()}, expected less than {below}"
