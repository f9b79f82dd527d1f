from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stresslens.core.types import Arrays, Count, Estimator


def knn(seed: int, *, neighbours: Count = 5, components: Literal["all"] | Count = 50) -> Estimator:
    """k nearest neighbours: the nearest training images vote, weighted by inverse distance.

    Distances are Euclidean, between pixels or, which is faster, between the first `components`
    principal components of the training images (randomised SVD, Halko et al. 2011). Scores are
    logarithms of the shares of votes, after one more vote is spread over all classes. Every
    training image is kept. If there are fewer images than `neighbours`, all vote.
    """
    return _Nearest(seed, neighbours, components)


@dataclass
class _Nearest:
    seed: int
    neighbours: int
    components: Literal["all"] | int
    arrays: Arrays = field(default_factory=dict)

    def fit(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        from sklearn.utils.extmath import randomized_svd

        pixels = images.reshape(len(images), -1)
        self.arrays = {"labels": labels, "mean": pixels.mean(0)}
        if self.components != "all" and self.components < min(pixels.shape):
            axes = randomized_svd(
                pixels - self.arrays["mean"], n_components=self.components, random_state=self.seed
            )[2]
            self.arrays["axes"] = axes.T
        self.arrays["points"] = self._projected(images)

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        from sklearn.neighbors import KNeighborsClassifier

        points, labels = self.arrays["points"], self.arrays["labels"]
        k = min(self.neighbours, len(points))
        voting = KNeighborsClassifier(k, weights="distance", algorithm="brute").fit(points, labels)
        shares = voting.predict_proba(self._projected(images))
        return np.asarray(np.log((k * shares + 1 / shares.shape[1]) / (k + 1)))

    def _projected(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        centred = images.reshape(len(images), -1) - self.arrays["mean"]
        return np.ascontiguousarray(centred @ self.arrays["axes"] if "axes" in self.arrays else centred)
