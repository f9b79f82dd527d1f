"""Which column of a file of predictions is which."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.spelling import closest, unknown_key
from stresslens.core.text import enumeration

Role: TypeAlias = Literal["name", "label", "prediction", "scores"]

USUAL: Mapping[Role, Sequence[str]] = {
    "name": (
        *("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path", "img"),
        *("image_id", "id", "index", "idx"),
    ),
    "label": (
        *("label", "labels", "target", "targets", "true", "truth", "y_true", "y_test", "ground_truth", "gt"),
        *("actual", "true_label", "label_ids", "references", "y"),
    ),
    "prediction": (
        *("prediction", "predictions", "pred", "preds", "predicted", "y_pred", "predicted_label", "answer"),
        *("pred_label", "predicted_class", "top1", "output"),
    ),
    "scores": ("scores", "probabilities", "probs", "prob", "proba", "y_score", "y_prob", "logits", "outputs"),
}
"""The usual names of columns, without case, blanks and hyphens; the first that is there is taken."""
OF_CLASS = re.compile(
    r"(?:scores?|prob(?:s|a|abilit(?:y|ies))?|p|logits?|outputs?)[\s_.:/\[(]+(.+?)[\])]?$", re.I
)
"""The name of a column with the score of one class: `prob_cat`, `logits[3]`."""


class Columns(NamedTuple):
    """Which column is which; `scores` are those of the classes, in their order, or one that holds a list."""

    name: str | None
    label: str | None
    prediction: str | None
    scores: tuple[str, ...]
    classes: tuple[str, ...]
    """The classes that the columns of scores name."""
    stated: str | None = None
    """The predicted class beside scores."""


def columns_of(
    path: Path,
    found: Mapping[str, Any],
    given: Mapping[str, str],
    *,
    has_truth: bool = False,
    only_labels: bool = False,
) -> Columns:
    """Which of the columns `found`, with values of some rows, is which: by `given` names, or else by the
    usual ones. With `has_truth` the labels are known from elsewhere; with `only_labels` an
    answer alone is taken for the label, and nothing else is needed. Raises ConfigError for a given column
    that is not there, and DataError where labels, or scores and predictions, are missing."""
    if wrong := sorted(set(given) - set(USUAL)):
        raise ConfigError(f"columns: {unknown_key(wrong[0], USUAL)}")
    roles = {role: _column(path, found, role, given) for role in USUAL}
    if only_labels:
        roles["label"] = roles["label"] or roles["prediction"]
    if has_truth:
        roles["prediction"] = roles["prediction"] or roles["label"]  # of a file of answers alone
        roles["label"] = None
    elif roles["label"] is None:
        raise DataError(
            f"{path} has no column of true labels ({', '.join(USUAL['label'][:4])}, …); it has "
            f"{enumeration(list(found), 8)}; name it (--columns label=NAME), or give the labels "
            "(--labels FILE)"
        )
    if only_labels:
        return Columns(roles["name"], roles["label"], None, (), ())
    listed = next(
        (each for role in ("scores", "prediction") if _holds_lists(found, each := roles[role])), None
    )
    prefix = given.get("scores")
    if listed is not None:
        stated = roles["prediction"] if listed != roles["prediction"] else None
        return Columns(roles["name"], roles["label"], None, (listed,), (), stated)
    scores = _of_classes(path, found, prefix if prefix not in found else None)
    if len(scores) >= 2:
        classes = tuple(scores.values())
        return Columns(roles["name"], roles["label"], None, tuple(scores), classes, roles["prediction"])
    if roles["prediction"] is None:
        raise DataError(
            f"{path} has neither predictions ({', '.join(USUAL['prediction'][:3])}, …) nor scores of each "
            f"class (prob_cat, logit_0, …); it has {enumeration(list(found), 8)}; name them "
            "(--columns prediction=NAME)"
        )
    return Columns(roles["name"], roles["label"], roles["prediction"], (), ())


def _column(path: Path, found: Mapping[str, Any], role: Role, given: Mapping[str, str]) -> str | None:
    """The column of a role, as given or with a usual name, if it is not given for another role. The scores
    may be given by the beginning of their columns' names."""
    asked = given.get(role)
    if asked is not None and asked not in found and role != "scores":
        raise ConfigError(f"{path} has no column {asked!r}; {closest(asked, list(found))}")
    if asked is not None:
        return asked if asked in found else None
    plain = {plain_name(name): name for name in found}
    plain = {name: column for name, column in plain.items() if column not in given.values()}
    return next((plain[name] for name in USUAL[role] if name in plain), None)


def plain_name(name: str) -> str:
    """The name of a column without case, blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def _of_classes(path: Path, found: Mapping[str, Any], prefix: str | None) -> dict[str, str]:
    """The class of each column of scores: of those that begin with `prefix`, or else with a usual word. In
    the order of the columns, numbers by their value."""
    if prefix is None:
        each = {name: match[1] for name in found if (match := OF_CLASS.match(name.strip()))}
    else:
        each = {name: name.removeprefix(prefix).strip("_ ") for name in found if name.startswith(prefix)}
        if len(each) < 2:
            raise ConfigError(
                f"{path} has no columns that begin with {prefix!r}; {closest(prefix, list(found))}"
            )
    if all(label.isdecimal() for label in each.values()):
        return dict(sorted(each.items(), key=lambda pair: int(pair[1])))
    return each


def _holds_lists(found: Mapping[str, Any], column: str | None) -> bool:
    return column is not None and is_list(found[column])


def is_list(values: Any) -> bool:
    """Whether a column holds a list of scores in each row: an array (n, K), lists, or JSON of lists."""
    if isinstance(values, np.ndarray):
        return values.ndim == 2
    first = next((value for value in values if value not in (None, "")), None)
    return isinstance(first, list) or (isinstance(first, str) and first.lstrip().startswith("["))
