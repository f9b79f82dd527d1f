"""Support vector machine (SVM) on feature arrays: linear, or with the Nyström map of a kernel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stresslens.core.types import Arrays

Kernel = Literal["linear", "rbf", "chi2"]
Floats = NDArray[np.floating]
PIECE = 1024


@dataclass(frozen=True)
class Machine:
    """A one-against-rest SVM with squared hinge loss and penalty `C` (LIBLINEAR, Fan et al. 2008).

    Features are standardised, except for chi2, whose features must not be negative. A kernel exp(-d
    / mean d) of the distance d is approximated by its Nyström map (Williams & Seeger 2001) over
    `landmarks` random training images; the SVM on the map is linear.
    """

    kernel: Kernel
    C: float
    landmarks: int
    seed: int

    def fitted(self, features: Floats, labels: NDArray[np.int64]) -> Arrays:
        """Fits features (N,D) and labels (N,), where every class 0 … K-1 occurs.

        Returns the arrays that `decisions` needs.
        """
        from sklearn.svm import LinearSVC

        arrays: Arrays = {}
        if self.kernel != "chi2":
            deviation = features.std(0)
            arrays = {"mean": features.mean(0), "deviation": np.where(deviation > 0, deviation, 1)}
        if self.kernel != "linear":
            chosen = np.random.default_rng(self.seed).permutation(len(features))[: self.landmarks]
            arrays["landmarks"] = _standardised(features[chosen], arrays)
            between = _distances(self.kernel, arrays["landmarks"], arrays["landmarks"])
            arrays["width"] = np.array(max(between.mean(), 1e-12))
            values, vectors = np.linalg.eigh(np.exp(-between / arrays["width"]))
            arrays["map"] = vectors / np.sqrt(values.clip(1e-9)) @ vectors.T
        machine = LinearSVC(C=self.C, random_state=self.seed).fit(
            _mapped(features, arrays, self.kernel), labels
        )
        return arrays | of_each_class(machine.coef_, machine.intercept_)

    def decisions(self, features: Floats, arrays: Arrays) -> Floats:
        """(N,K) decision values of features (N,D)."""
        return np.asarray(_mapped(features, arrays, self.kernel) @ arrays["weights"].T + arrays["bias"])


def of_each_class(weights: Floats, bias: Floats) -> Arrays:
    """Weights (K,D) and bias (K,) of a linear classifier of scikit-learn.

    For two classes, scikit-learn gives only those of the second.
    """
    if len(bias) == 1:
        weights, bias = (np.concatenate([-half, half]) for half in (weights / 2, bias / 2))
    return {"weights": weights, "bias": bias}


def _mapped(features: Floats, arrays: Arrays, kernel: Kernel) -> Floats:
    x = _standardised(features, arrays)
    if kernel == "linear":
        return x
    return np.asarray(np.exp(-_distances(kernel, x, arrays["landmarks"]) / arrays["width"]) @ arrays["map"])


def _standardised(features: Floats, arrays: Arrays) -> Floats:
    x = features.astype(np.float64)
    return (x - arrays["mean"]) / arrays["deviation"] if "mean" in arrays else x


def _distances(kernel: Kernel, x: Floats, others: Floats) -> Floats:
    """(N,M) distances: squared Euclidean for rbf; Σ (x-y)²/(x+y), where x+y is not 0, for chi2."""
    from sklearn.metrics.pairwise import additive_chi2_kernel, euclidean_distances

    if kernel == "rbf":
        return np.asarray(euclidean_distances(x, others, squared=True))

    def piece(start: int) -> Any:
        return -additive_chi2_kernel(x[start : start + PIECE], others)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.concatenate(list(pool.map(piece, range(0, len(x), PIECE))))
