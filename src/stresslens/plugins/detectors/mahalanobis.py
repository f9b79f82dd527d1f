from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stresslens.core.detectors import Floats64, OODScore


def mahalanobis(features: Floats64, labels: NDArray[np.int64]) -> OODScore:
    """The squared Mahalanobis distance of the features to the nearest class (Lee et al. 2018, equation 2).

    Each class of the training images has its mean; the covariance is that of all deviations from them.
    Directions in which the training images do not vary are left out (pseudoinverse).
    """
    present, of = np.unique(labels, return_inverse=True)
    centres = np.stack([features[of == k].mean(0) for k in range(len(present))])
    deviations = features - centres[of]
    precision = np.linalg.pinv(deviations.T @ deviations / len(features), hermitian=True)

    def score(features: Floats64, logits: Floats64) -> Floats64:
        nearest = np.full(len(features), np.inf)
        for centre in centres:
            away = features - centre
            nearest = np.minimum(nearest, np.einsum("nd,nd->n", away @ precision, away))
        return nearest

    return score
