"""Labels as people have them: words, numbers from 1 or with gaps, one-hot rows, Series and tensors
become class numbers (N,) int64."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, KeysView, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.arrays import whole
from stresslens.core.errors import DataError, Notice, first_line
from stresslens.core.spelling import closest
from stresslens.core.text import printable


def label_numbers(labels: Any, classes: Sequence[str] | None) -> Tensor:
    """Labels for a model as class numbers (N,) int64.

    Whole numbers are class numbers; words are looked up in `classes`, the model's class names, if
    they are known. One-hot rows (N,K) are taken too. Raises DataError for everything else.
    """
    values, columns = _one_axis(labels)
    if columns and classes is not None:
        return _by_columns(values, columns, classes)
    if values.dtype.kind != "U":
        numbers = torch.from_numpy(values.astype(np.int64))
        _notice_names_that_are_numbers(numbers, classes)
        return numbers
    if classes is None:
        raise DataError(
            f"labels are words ({str(values[0])!r}, …), and the class names of this model are not known; "
            "give class numbers, for example [classes.index(label) for label in labels]"
        )
    return _looked_up(values, classes)


def names_as_given(classes: Any) -> tuple[str, ...]:
    """Class names as people have them: words, bytes or numbers in the order of the class numbers, or a
    mapping between names and numbers. Raises DataError where the order is not known."""
    expected = "expected a list of names in the order of the class numbers"
    if isinstance(classes, Mapping):
        return names_as_given(_ordered(classes, expected))
    unordered = isinstance(classes, Set) and not isinstance(classes, KeysView)
    if unordered or isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
        kind = "a set, which has no order" if unordered else repr(classes)
        raise DataError(f"classes are {kind}; {expected}")
    try:
        return tuple(_name(each) for each in classes)
    except (TypeError, ValueError, RuntimeError):  # TypeError: an array without axes
        wrong = f"classes hold what is no name: {printable(repr(classes)[:200])}"
        raise DataError(f"{wrong}; {expected}") from None


def _name(each: Any) -> str:
    """A class name as str. Raises TypeError or ValueError for what is no name."""
    value = each.item() if isinstance(each, Tensor | np.generic) else each
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float) and value == value:
        return str(value)
    raise TypeError(type(value).__name__)


def _ordered(classes: Mapping[Any, Any], expected: str) -> list[Any]:
    """The names of {name: number} or {number: name}, ordered by their numbers."""

    def is_number(value: Any) -> bool:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)

    for pairs in ([(key, value) for key, value in classes.items()], [(v, k) for k, v in classes.items()]):
        numbered = all(is_number(number) and not is_number(name) for number, name in pairs)
        if numbered and sorted(int(number) for number, _ in pairs) == list(range(len(pairs))):
            return [name for _, name in sorted(pairs, key=lambda pair: int(pair[0]))]
    raise DataError(
        f"classes are a mapping that does not number its names from 0 to {len(classes) - 1}; {expected}"
    )


def named_labels(labels: Any, classes: Any) -> tuple[Tensor, tuple[str, ...]]:
    """Labels of a new data set as class numbers (N,) int64, and the class names.

    Without `classes`, the labels themselves are the names, sorted: words, or numbers that begin
    anywhere and may have gaps. With `classes`, words are looked up there, and whole numbers count from
    0, except where the names are numbers themselves. Raises DataError for labels that are neither, and
    for names without an order (`names_as_given`).
    """
    names = None if classes is None else names_as_given(classes)
    values, columns = _one_axis(labels)
    if columns:  # one-hot rows name classes without images, too
        names = names_as_given(columns) if names is None else names
        return _by_columns(values, columns, names), names
    if values.dtype.kind == "U":
        names = tuple(np.unique(values).tolist()) if names is None else names
        return _looked_up(values, names), names
    present = np.unique(values)
    if names is None:
        _check_negative(values, present)
        names = tuple(str(value) for value in present.tolist())
        return torch.from_numpy(np.searchsorted(present, values)), names
    written = {str(value) for value in present.tolist()}
    as_numbers = present.size > 0 and present.min() >= 0 and present.max() < len(names)
    if written <= set(names) and names != tuple(map(str, range(len(names)))):
        if as_numbers:
            raise DataError(
                f"labels {', '.join(sorted(written)[:5])} may be class numbers, where 0 is {names[0]!r}, or "
                "names of classes; write names as words: labels.astype(str)"
            )
        return _looked_up(values.astype(str), names), names
    return torch.from_numpy(values.astype(np.int64)), names


def _by_columns(values: NDArray[Any], columns: Sequence[Any], classes: Sequence[str]) -> Tensor:
    """The class numbers of one-hot rows: by the names of their columns if these are the classes, or else
    by their places."""
    if len(columns) != len(classes):
        raise DataError(
            f"labels are one-hot rows of {len(columns)} columns, but there are {len(classes)} classes"
        )
    named = [str(column) for column in columns]
    if set(named) == set(classes) and named != [str(k) for k in range(len(named))]:
        return _looked_up(np.asarray(named)[values], classes)
    return torch.from_numpy(values.astype(np.int64))


def _one_axis(labels: Any) -> tuple[NDArray[Any], list[Any]]:
    """Labels as words or whole numbers, (N,); of one-hot rows also the names of their columns."""
    values, columns = _array(labels), list[Any]()
    if values.ndim == 0:
        values = values.reshape(1)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "T":  # of numpy's StringDType
        values = values.astype(object)
    if values.dtype == object:
        values = _of_one_kind(values)
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise DataError("labels are bytes that are not UTF-8; decode them first") from None
    if values.dtype.kind not in "Ubiuf":
        raise DataError(f"labels are {values.dtype}; expected words or whole numbers, one for each image")
    if values.ndim == 2 and values.dtype.kind != "U":
        given = getattr(labels, "columns", None)  # of a table of pandas or polars
        width = values.shape[1]
        columns = list(given) if isinstance(given, Iterable) else list(range(width))
        values = _of_one_hot_rows(values)
    if values.ndim != 1:
        raise DataError(f"labels have shape {values.shape}; expected one for each image, (N,)")
    if values.dtype.kind == "U" and (values == "").any():
        raise DataError(f"label {int(np.flatnonzero(values == '')[0])} is empty; every image needs its class")
    return _whole(values), columns


def _array(labels: Any) -> NDArray[Any]:
    labels = whole(labels, "labels")
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu()
        if labels.dtype == torch.bfloat16:
            labels = labels.float()
        return np.asarray(labels.numpy())
    if isinstance(labels, str | bytes):
        return np.asarray([labels])
    try:
        values = np.asarray(labels)
        if values.dtype.kind in "US" and not isinstance(labels, np.ndarray):
            values = np.asarray(labels, dtype=object)  # numpy makes words of numbers beside words
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"labels are not one value for each image: {first_line(error)}") from error
    return values


def _of_one_kind(values: NDArray[Any]) -> NDArray[Any]:
    """An object array as words, or as numbers. Raises DataError for missing labels, and for several
    kinds of them."""
    items = [each.item() if isinstance(each, Tensor | np.generic) else each for each in values.reshape(-1)]
    if values.ndim == 1 and items and all(np.ndim(each) == 1 for each in items):
        return _array([np.asarray(each).tolist() for each in items])
    for k, each in enumerate(items):
        if each is None or type(each).__name__ in ("NAType", "NaTType") or each != each:
            raise DataError(f"label {k} is missing ({each}); leave the image out, or give its class")
    kinds = {
        "words" if isinstance(each, str | bytes) else "numbers" if isinstance(each, int | float) else "others"
        for each in items
    }
    if kinds == {"words"}:
        texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in items]
        return np.asarray(texts, dtype=str).reshape(values.shape)
    if kinds == {"numbers"}:
        return np.asarray(items).reshape(values.shape)
    first = next(
        (each for each in items if not isinstance(each, str | bytes | int | float)),
        f"{items[0]!r} and others of another kind",
    )
    shown = first if isinstance(first, str) else f"a {type(first).__name__}"
    raise DataError(f"labels hold {shown}; expected words, or whole numbers, one for each image")


def _of_one_hot_rows(values: NDArray[Any]) -> NDArray[np.int64]:
    if not (np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
        raise DataError(
            f"labels have shape {values.shape}; rows are taken if each is one-hot: a single 1, all others 0"
        )
    return np.nonzero(values)[1].astype(np.int64)


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers as int64, as far as they are whole and not too large; others as they are."""
    if values.dtype.kind == "f":
        wrong = np.flatnonzero(values != np.round(values))  # NaN too
        wrong = wrong if len(wrong) else np.flatnonzero(~(np.abs(values.astype(np.longdouble)) < 2.0**63))
    elif values.dtype.kind == "u":
        wrong = np.flatnonzero(values > np.iinfo(np.int64).max)
    else:
        return values
    if len(wrong):
        k = int(wrong[0])
        raise DataError(
            f"label {k} is {values[k]:g}; expected words, or whole numbers, one class for each image"
        )
    return values.astype(np.int64)


def _looked_up(values: NDArray[Any], classes: Sequence[str]) -> Tensor:
    places = {name: k for k, name in enumerate(classes)}
    for k, label in enumerate(values.tolist()):
        if label not in places:
            raise DataError(
                f"label {label!r} (image {k}) is the name of no class; {closest(label, list(classes))}"
            )
    return torch.tensor([places[label] for label in values.tolist()], dtype=torch.int64)


def _check_negative(values: NDArray[Any], present: NDArray[Any]) -> None:
    """Raises DataError for a number below 0, which often stands for no label; of two classes one may be
    called -1."""
    if present.size and present.min() < 0 and present.tolist() != [-1, 1]:
        k = int(np.flatnonzero(values < 0)[0])
        raise DataError(
            f"label {values[k]} (image {k}) is below 0; leave images without a label out, or write the names "
            "of the classes as words: labels.astype(str)"
        )


def _notice_names_that_are_numbers(numbers: Tensor, classes: Sequence[str] | None) -> None:
    """Says that class numbers are counted from 0, where the names of the classes are other numbers."""
    if classes is None or list(classes) == [str(k) for k in range(len(classes))]:
        return
    present = {str(number) for number in numbers.unique().tolist()}
    if present and present <= set(classes):
        warnings.warn(
            f"labels are taken as class numbers: 0 is the class called {classes[0]}, 1 is {classes[1]}; "
            "for the names, write them as words: labels.astype(str)",
            Notice,
            stacklevel=4,
        )
