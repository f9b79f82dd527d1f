from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from stresslens.core.errors import DataError
from stresslens.core.progress import advance
from stresslens.core.types import Arrays, Count, Estimator, Positive
from stresslens.plugins.estimators import _svm
from stresslens.plugins.estimators._pictures import Scale, grey

if TYPE_CHECKING:
    from cv2 import KeyPoint

EXTRA = "classical"
LEAST = 56
PIECE = 512
"""Number of images whose descriptors are in memory at once."""


def sift_bovw_svm(
    seed: int,
    *,
    words: Annotated[int, Field(ge=2)] = 400,
    keypoints: Literal["dense", "detected"] = "dense",
    step: Count = 4,
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (4.0,),
    scale: Scale = "auto",
    vocabulary_images: Count = 2000,
    kernel: _svm.Kernel = "chi2",
    C: Positive = 1.0,
    landmarks: Count = 500,
) -> Estimator:
    """SVM on a bag of visual words (Csurka et al. 2004) of SIFT descriptors (Lowe 2004).

    The grey image is enlarged by `scale` (auto: to at least 56 pixels). Keypoints are `detected`,
    or `dense`: upright, every `step` pixels, in each of `sizes`; a descriptor is six sizes wide.
    Mini-batch k-means finds the `words` among the descriptors of `vocabulary_images`. An image is
    represented by the histogram of its words, which sums to 1; without keypoints (an image of one
    colour) it is zero. The SVM (penalty `C`) gets standardised features with `kernel` linear or
    rbf, and plain ones with chi2; kernels are approximated over `landmarks` training images. Raises
    DataError if there are fewer descriptors than words.
    """
    machine = _svm.Machine(kernel, C, landmarks, seed)
    return _Bag(seed, words, keypoints, step, sizes, scale, vocabulary_images, machine)


@dataclass
class _Bag:
    seed: int
    words: int
    keypoints: Literal["dense", "detected"]
    step: int
    sizes: tuple[float, ...]
    scale: Scale
    vocabulary_images: int
    machine: _svm.Machine
    arrays: Arrays = field(default_factory=dict)

    def fit(self, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        chosen = np.random.default_rng(self.seed).permutation(len(images))[: self.vocabulary_images]
        self.arrays = {"words": self._vocabulary(images[np.sort(chosen)])}
        histograms = np.concatenate(list(self._histograms(images)))
        self.arrays |= self.machine.fitted(histograms, labels)

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.floating]:
        histograms = np.concatenate(list(self._histograms(images)))
        return self.machine.decisions(histograms, self.arrays)

    def _vocabulary(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        from sklearn.cluster import MiniBatchKMeans

        descriptors = np.concatenate([part for piece in self._descriptors(images) for part in piece])
        if len(descriptors) < self.words:
            raise DataError(
                f"sift_bovw_svm: {len(images)} training images have {len(descriptors)} descriptors, "
                f"fewer than the {self.words} words; "
                "lower words, raise vocabulary_images or scale, or take keypoints: dense"
            )
        means = MiniBatchKMeans(
            self.words, batch_size=4096, n_init=1, random_state=self.seed, compute_labels=False
        )
        return np.asarray(means.fit(descriptors).cluster_centers_, np.float32)

    def _histograms(self, images: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
        """(n, words) for each piece of images: the share of descriptors that are nearest to each
        word."""
        from sklearn.metrics import pairwise_distances_argmin

        for descriptors in self._descriptors(images):
            counts = np.zeros((len(descriptors), self.words))
            if any(map(len, descriptors)):
                nearest = pairwise_distances_argmin(np.concatenate(descriptors), self.arrays["words"])
                image = np.repeat(np.arange(len(descriptors)), list(map(len, descriptors)))
                np.add.at(counts, (image, nearest), 1)
            yield counts / counts.sum(1, keepdims=True).clip(1)

    def _descriptors(self, images: NDArray[np.float32]) -> Iterator[list[NDArray[np.float32]]]:
        """For each piece of images, each image's descriptors (k,128).

        Descriptors of patches of one colour, which are 0, are left out.
        """
        for start in range(0, len(images), PIECE):
            enlarged = grey(images[start : start + PIECE], self.scale, least=LEAST)
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                yield list(pool.map(self._of_image, enlarged))
            if len(images) > PIECE:
                advance("describing images", min(start + PIECE, len(images)), len(images))

    def _of_image(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        import cv2

        sift = cv2.SIFT.create()
        points = sift.detect(image, None) if self.keypoints == "detected" else self._grid(*image.shape)
        descriptors = sift.compute(image, points)[1] if points else None
        if descriptors is None:
            return np.zeros((0, 128), np.float32)
        return np.asarray(descriptors[descriptors.any(1)])

    def _grid(self, height: int, width: int) -> list[KeyPoint]:
        from cv2 import KeyPoint

        ys, xs = (range(self.step // 2, side, self.step) for side in (height, width))
        return [KeyPoint(float(x), float(y), size, 0.0) for size in self.sizes for y in ys for x in xs]
