from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Arrays, Count, Estimator, Positive
from stresslens.plugins.estimators._svm import of_each_class


def logistic_regression(*, C: Positive = 0.01, iterations: Count = 200) -> Estimator:
    """Multinomial logistic regression on pixels, with an L2 penalty of weight 1/`C`.

    Pixels are centred and divided by one standard deviation. L-BFGS starts from zero and takes at
    most `iterations`; if these are too few, the run has a warning. Scores are logits.
    """
    return _Logistic(C, iterations)


@dataclass
class _Logistic:
    C: float
    iterations: int
    arrays: Arrays = field(default_factory=dict)

    def fit(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        from sklearn.linear_model import LogisticRegression

        pixels = images.reshape(len(images), -1)
        mean, deviation = pixels.mean(0), max(float(pixels.std()), 1e-6)
        fitted = LogisticRegression(C=self.C, max_iter=self.iterations).fit(
            (pixels - mean) / deviation, labels
        )
        weights = fitted.coef_ / deviation
        self.arrays = of_each_class(weights, fitted.intercept_ - weights @ mean)

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        return np.asarray(images.reshape(len(images), -1) @ self.arrays["weights"].T + self.arrays["bias"])
