"""Whether the label can be predicted from a property other than the image's content."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.data import Data
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.metrics.intervals import wilson

SHORTCUT = (0.25, 0.5)
"""How far a shortcut gets from the majority baseline (0) to 100 % accuracy (1): minor from the
first value on, serious from the second."""
PROBED = 20_000
"""Most training images that are searched for a shortcut."""


def shortcut(what: str, values: NDArray[Any] | None, data: Data) -> Finding:
    """The finding on a property: a decision tree predicts the label of training images from its values
    alone, by cross-validation. `what` names it. `values` are numbers (N, F), or words (N,) of kinds; None
    if the property is not known."""
    audit = f"label from {what}"
    if values is None:
        return not_checked(audit, f"{what}: not known of these images")
    if values.ndim == 1:
        values = np.unique(values.astype(str), return_inverse=True)[1]
    if not np.ptp(values, axis=0).any():
        return not_checked(audit, f"{what}: all the same")
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    labels = data.train.labels.cpu().numpy()
    rows = np.random.default_rng(0).permutation(len(labels))[:PROBED]
    values, labels = values[rows], labels[rows]
    values = np.eye(values.max() + 1)[values] if values.ndim == 1 else values.astype(np.float64)
    tree = DecisionTreeClassifier(
        max_leaf_nodes=64, min_samples_leaf=max(2, len(rows) // 500), random_state=0
    )
    guesses = cross_val_predict(tree, values, labels, cv=KFold(min(5, len(labels))))
    accuracy = wilson(int((guesses == labels).sum()), len(labels))
    baseline = np.bincount(labels).max() / len(labels)
    reached = (accuracy.low - baseline) / (1 - baseline)
    minor, serious = SHORTCUT
    evidence = (
        f"{what} alone gives the label of {100 * accuracy.value:.1f} % of the training images "
        f"({100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}, cross-validated; "
        f"always predicting the most frequent class gives {100 * baseline:.1f} %)"
    )
    if reached < minor:
        return no_sign(audit, evidence, len(labels))
    remedy = (
        "a model may learn this instead of the image's content: "
        "take all classes from the same source, or make them equal in this"
    )
    return sign(audit, evidence, len(labels), remedy, serious=reached >= serious)
