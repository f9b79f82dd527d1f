"""ROC and precision–recall curves of one class against the rest, as points to draw."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stresslens.metrics.intervals import Floats


class RankingCurve(NamedTuple):
    """Points (x, y) of shape (P,), with x ascending from 0 to 1; `steps` where it is made of level steps,
    each up to and with its right end."""

    x: Floats
    y: Floats
    steps: bool = False

    @property
    def area(self) -> float:
        """The area under the line through the points."""
        return float(np.trapezoid(self.y, self.x))

    def at(self, x: Floats) -> Floats:
        """The height (…) at x (…) in [0, 1]."""
        if self.steps:
            return np.asarray(self.y[np.searchsorted(self.x, x, side="left")])
        return np.asarray(np.interp(x, self.x, self.y))


def roc_curve(scores: Floats, positive: NDArray[np.bool_]) -> RankingCurve:
    """True-positive rate over false-positive rate for every threshold of scores (N,).

    Images with equal scores enter together, so the area is `ranking.auroc`, in which ties count half.
    Both sides need an image.
    """
    hits, false_alarms = _entered(scores, positive)
    x, y = false_alarms / false_alarms[-1], hits / hits[-1]
    return RankingCurve(np.append(0.0, x), np.append(0.0, y))


def precision_recall_curve(scores: Floats, positive: NDArray[np.bool_]) -> RankingCurve:
    """Precision over recall for every threshold of scores (N,), as steps.

    Each step has the precision at its lower threshold, so the area is the average precision
    (`ranking.auprc`). A straight line between the points would be too good (Davis & Goadrich 2006).
    """
    hits, false_alarms = _entered(scores, positive)
    recall, precision = hits / hits[-1], hits / (hits + false_alarms)
    return RankingCurve(np.repeat(np.append(0.0, recall), 2)[1:-1], np.repeat(precision, 2), steps=True)


def mean_curve(curves: list[RankingCurve], places: int = 200) -> RankingCurve:
    """The mean height of the curves, all of one kind, at `places` + 1 equally spaced x. Where a curve is
    vertical its upper end counts, and a ROC curve begins at (0, 0)."""
    grid = np.linspace(0, 1, places + 1)
    heights = np.mean([curve.at(grid) for curve in curves], axis=0)
    steps = curves[0].steps
    return (
        RankingCurve(grid, heights, steps)
        if steps
        else RankingCurve(np.append(0.0, grid), np.append(0.0, heights))
    )


def _entered(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """How many positive images, and how many others, have at least each distinct score, from the
    highest score down."""
    _, group = np.unique(-scores, return_inverse=True)
    hits = np.cumsum(np.bincount(group, weights=positive))
    others = np.cumsum(np.bincount(group, weights=~positive))
    return hits.astype(float), others.astype(float)
