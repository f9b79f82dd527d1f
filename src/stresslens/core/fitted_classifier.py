"""Fitted classifiers with the methods of scikit-learn, as models without a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stresslens.core.class_names import plain_form
from stresslens.core.errors import ConfigError
from stresslens.core.foreign_model import ForeignModel, Layout, Output

SCORES: tuple[tuple[str, Output], ...] = (
    ("predict_proba", "probabilities"),
    ("decision_function", "logits"),
    ("predict", "labels"),
)
"""The methods that are asked, the first that a classifier has, and what they return."""


def is_classifier(value: Any) -> bool:
    """Whether a value has the methods of a classifier of scikit-learn."""
    return not isinstance(value, type) and hasattr(value, "fit") and hasattr(value, "predict")


def of_classifier(
    classifier: Any,
    names: Sequence[str] | None,
    *,
    what: str = "",
    layout: Layout = "flat",
    bgr: bool = False,
    columns: Sequence[int] | None = None,
    digest: str = "",
) -> ForeignModel:
    """A fitted classifier as a model. `names` are the classes of the data; None: its own, in its order.

    Raises ConfigError for what is not a fitted classifier, or has other classes.
    """
    what = what or f"the classifier {type(classifier).__name__}"
    if not is_classifier(classifier):
        raise ConfigError(f"{what} is a {type(classifier).__name__}; expected a fitted classifier")
    own = classes_of(classifier, what)
    if not isinstance(own, np.ndarray) or own.ndim != 1:
        raise ConfigError(f"{what} answers several questions at once; expected one class for each image")
    method, output = next((name, kind) for name, kind in SCORES if hasattr(classifier, name))
    if columns is None and names is not None:
        columns = _order(own.tolist(), names, what)
    ask = getattr(classifier, method)

    def answer(images: np.ndarray) -> Any:
        answered = ask(images)
        return np.searchsorted(own, answered) if output == "labels" else answered

    return ForeignModel(
        answer,
        what,
        classes=len(own),
        layout=layout,
        bgr=bgr,
        output=output,
        columns=columns,
        digest=digest,
    )


def classes_of(classifier: Any, what: str = "") -> Any:
    """The classes of a fitted classifier. Raises ConfigError where it is not fitted."""
    own = getattr(classifier, "classes_", None)
    if own is None:
        what = what or f"the classifier {type(classifier).__name__}"
        raise ConfigError(f"{what} is not fitted (it has no classes_); call its fit first")
    return own


def _order(own: list[Any], names: Sequence[str], what: str) -> list[int] | None:
    """The place of each class of the data among the classifier's own; None where they are the same."""
    numbers = all(isinstance(each, int) for each in own)
    known: list[Any] = own if numbers else [plain_form(str(each)) for each in own]
    wanted: list[Any] = list(range(len(names))) if numbers else [plain_form(name) for name in names]
    if numbers and set(own) != set(wanted) and {str(each) for each in own} == set(names):
        known, wanted = [str(each) for each in own], list(names)
    if missing := [names[k] for k, each in enumerate(wanted) if each not in known]:
        raise ConfigError(
            f"{what} does not know the class {missing[0]!r} of the data; its classes are "
            f"{', '.join(map(str, own[:10]))}{', …' if len(own) > 10 else ''}. Fit it on all classes, or "
            "give their places: columns: [0, 1, …]"
        )
    order = [known.index(each) for each in wanted]
    return None if order == list(range(len(own))) else order
