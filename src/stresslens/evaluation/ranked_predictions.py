"""Predictions that list the best classes of each image with their scores, the highest first, as timm's
`inference.py --topk` and the text files of ultralytics do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.errors import DataError
from stresslens.evaluation.prediction_columns import is_list

CLASS = re.compile(r"(?:index|label|class|prediction|pred)_(\d+)$", re.I)
"""The name of a column with the class of a rank."""
SCORE = re.compile(r"(?:prob|score|logit|confidence)_(\d+)$", re.I)
"""The name of a column with the score of a rank."""
CLASS_LISTS = ("label", "index", "classes")
SCORE_LISTS = ("prob", "logit", "scores")
SUM = 1e-3
"""The scores of all classes add up to 1 but for this rounding."""
FEWEST = 10
"""Rows that all fall from left to right before they are taken to be ranked."""


def unranked(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """The columns of some rows, with ranked classes turned into columns of scores (`prob_cat`) where each
    row lists all classes, and else into the column `prediction` of the best class. Other columns stay."""
    found = _ranked_columns(columns) or _ranked_lists(columns)
    if found is None:
        return columns
    classes, scores, used = found
    kept = {name: values for name, values in columns.items() if name not in used}
    return {**kept, **by_class(classes, scores)}


def by_class(classes: Sequence[Sequence[str]], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Columns of ranked `classes` and `scores`, a list for each image: one for each class, or `prediction`
    where a row does not list all of them."""
    names = sorted({name for row in classes for name in row})
    complete = all(len(row) == len(names) and len(set(row)) == len(row) for row in classes)
    sums = np.array([sum(map(float, row)) for row in scores])
    if len(names) < 2 or not complete or (np.abs(sums - 1) > SUM).any():
        return {"prediction": [row[0] for row in classes]}
    rows = [dict(zip(row, values)) for row, values in zip(classes, scores)]
    return {f"prob_{name}": [row[name] for row in rows] for name in names}


def check_not_ranked(path: Path, scores: NDArray[np.floating]) -> None:
    """Raises DataError where the scores (N, K) of every image fall from the first class to the last: they
    are then in the order of their size, and nobody knows whose they are."""
    varied = len(scores) >= FEWEST and scores.shape[1] >= 3 and bool((scores != scores[:1]).any())
    if varied and bool((np.diff(scores, axis=1) <= 0).all()):
        raise DataError(
            f"{path}: the scores of every row fall from the first to the last, so they are in the order of "
            "their size and do not say whose they are; write them in the order of the classes, or the class "
            "of each beside it (index_0, prob_0, index_1, prob_1, …)"
        )


def list_of_text(value: Any) -> Any:
    """A list from its text, as JSON or as numpy prints it (`[0.1 0.9]`). Raises ValueError for others,
    and for a text that leaves values out (`…`)."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        if "..." in value:
            raise ValueError("some of the values are left out (...)") from None
        inside = value.strip().removeprefix("[").removesuffix("]")
        quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", inside)
        return [a or b for a, b in quoted] if quoted else [float(word) for word in inside.split()]


def _ranked_columns(columns: Mapping[str, Any]) -> tuple[list[list[str]], list[list[float]], set[str]] | None:
    """Classes, scores and the names of the columns, of a class and a score column for each rank."""
    class_of = {int(found[1]): name for name in columns if (found := CLASS.match(name))}
    score_of = {int(found[1]): name for name in columns if (found := SCORE.match(name))}
    if len(class_of) < 2 or class_of.keys() != score_of.keys():
        return None
    ranks = sorted(class_of)
    also = {name for name in columns if CLASS.match(name)}
    classes = [list(map(str, row)) for row in zip(*(columns[class_of[k]] for k in ranks))]
    scores = [list(map(float, row)) for row in zip(*(columns[score_of[k]] for k in ranks))]
    return classes, scores, {*also, *score_of.values()}


def _ranked_lists(columns: Mapping[str, Any]) -> tuple[list[list[str]], list[list[float]], set[str]] | None:
    """The same of two columns that hold lists."""
    class_lists = [name for name in CLASS_LISTS if _holds_lists(columns.get(name))]
    score_list = next((name for name in SCORE_LISTS if _holds_lists(columns.get(name))), None)
    if not class_lists or score_list is None:
        return None
    classes = [list(map(str, list_of_text(row))) for row in columns[class_lists[0]]]
    scores = [list(map(float, list_of_text(row))) for row in columns[score_list]]
    return classes, scores, {*class_lists, score_list}


def _holds_lists(values: Any) -> bool:
    """Whether a column is there and holds lists, or texts of lists, from its first row on."""
    return values is not None and len(values) > 0 and is_list(values[:1])
