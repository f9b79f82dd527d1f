"""Metrics as means over images: (N,) values of single images whose mean is the metric.

The value of accuracy or of the Brier score is the image's own. A metric that is no mean, such as F1 or
AUROC, has pseudo-values: metric + influence of the image (Hampel 1974). Their mean is the metric, and
their variance / N is its variance. For AUROC this is the variance of DeLong et al. (1988), and the
analysis of pseudo-values over readers and cases is that of Dorfman, Berbaum & Metz (1992).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats


def recall_values(right: NDArray[np.bool_], labels: Labels, classes: Labels) -> Floats:
    """(N,) pseudo-values of the mean recall of `classes`, which all have images: balanced accuracy,
    for the classes that have any.

    Only how images differ within their class counts as variance, because every class has the same
    weight whatever its number of images. It is scaled by n/(n - 1) for a class of n images.
    """
    recalls = np.zeros(len(labels))
    spread = np.zeros(len(labels))
    for k in classes:
        of = labels == k
        n = int(of.sum())
        recalls[of] = right[of].mean()
        spread[of] = len(labels) / (len(classes) * n) * (n / max(1, n - 1)) ** 0.5
    mean = float(np.mean([right[labels == k].mean() for k in classes]))
    return mean + spread * (right - recalls)


def f1_values(answers: Labels, labels: Labels, classes: Labels) -> Floats:
    """(N,) pseudo-values of the mean F1 of `classes`. F1 = 2 TP / (images of the class + answers of
    it), 0 for a class that has neither."""
    values, influence = [], np.zeros(len(labels))
    for k in classes:
        of, named = labels == k, answers == k
        both, either = of & named, int(of.sum() + named.sum())
        value = 2 * int(both.sum()) / max(1, either)
        values.append(value)
        influence += (2.0 * both - value * (of + named.astype(float))) / max(1, either)
    return np.asarray(np.mean(values) + len(labels) * influence / len(classes))
