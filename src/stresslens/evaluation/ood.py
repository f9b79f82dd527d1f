"""Is an image like those that the model was trained on? A distance, and how often it would be
called unlike by mistake.

Three distances, because a model may map what it has never seen into the midst of what it knows: of
the features in front of its last linear layer, Mahalanobis' to the nearest class (Lee et al. 2018)
and, of more than 64, what their principal axes leave over; and Mahalanobis' of the picture itself,
shrunk to 8×8 pixels. Each is put on the scale of the training images, and the largest counts. Its
rank among the validation images is a conformal p-value (Vovk et al. 2005): of images drawn as those
were, at most a share a has p ≤ a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.files import UnreadableRun, read_arrays, write_atomically
from stresslens.core.inspection import evaluating, feature_layer, features

RATE = 0.01
"""Share of images like the training images that may be called unlike."""
MOST_IMAGES, MOST_VALUES = 10_000, 2**26
"""A distance is fitted on at most so many images, and on fewer where their features would take more
than 256 MiB."""
AXES = 64
THUMBNAIL = 8
SHRINKAGE = 0.3
"""How far covariances are drawn towards a sphere, so that axes along which the training images
hardly vary do not decide alone."""
BATCH = 512

Floats32 = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Features:
    """Some images of a split: features (N, D), coarse pixels (N, d), labels (N,)."""

    features: Floats32
    coarse: Floats32
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ClassGaussians:
    """A normal distribution per class with one covariance, on principal axes: mean (D,), axes (D,
    d) that lead to where the covariance is the identity, centres (K, d) there, and the orthonormal
    basis (D, d) that the axes span."""

    mean: Floats32
    basis: Floats32
    whiten: Floats32
    centres: Floats32

    @staticmethod
    def fitted(values: Floats32, labels: NDArray[np.int64], *, axes: int) -> ClassGaussians:
        from sklearn.utils.extmath import randomized_svd

        mean, width = values.mean(0), values.shape[1]
        if width > axes:
            basis = randomized_svd(
                values - mean, n_components=min(axes, len(values)), n_iter=2, random_state=0
            )[2].T
        else:
            basis = np.eye(width)
        placed = (values - mean) @ basis
        present, own = np.unique(labels, return_inverse=True)
        centres = np.stack([placed[own == k].mean(0) for k in range(len(present))])
        inside = placed - centres[own]
        covariance = inside.T.astype(np.float64) @ inside / len(inside)
        sphere = max(float(np.trace(covariance)) / len(covariance), 1e-12)
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere * np.eye(len(covariance))
        whiten = np.linalg.cholesky(np.linalg.inv(shrunk))
        return ClassGaussians(*(a.astype(np.float32) for a in (mean, basis, whiten, centres @ whiten)))

    def distances(self, values: Floats32) -> Floats32:
        """(N, 1) Mahalanobis' distance to the nearest class; of fewer axes than values (N, 2), with
        that from their space."""
        centred = values - self.mean
        placed = centred @ self.basis
        white = placed @ self.whiten
        squares = (
            np.square(white).sum(1)[:, None] - 2 * white @ self.centres.T + np.square(self.centres).sum(1)
        )
        nearest = squares.min(1).clip(0)
        if self.basis.shape[0] == self.basis.shape[1]:
            return np.asarray(np.sqrt(nearest)[:, None])
        length = np.square(centred).sum(1)
        rest = (length - np.square(placed).sum(1)).clip(1e-6 * length)  # below it is rounding
        return np.asarray(np.sqrt(np.stack([nearest, rest], axis=1)))


@dataclass(frozen=True)
class OODDetector:
    """The clouds, centre and spread (2 or 3,) of the training images' log distances, the validation
    images' combined, sorted."""

    features: ClassGaussians
    coarse: ClassGaussians
    centre: Floats32
    spread: Floats32
    calibration: Floats32

    @property
    def rate(self) -> float:
        """The false-alarm rate of calling p ≤ rate unlike: `RATE`, or with fewer than 99 validation
        images the least they allow."""
        return max(RATE, 1 / (len(self.calibration) + 1))

    def p_values(self, sample: Features) -> NDArray[np.float64]:
        """(N,) share of images like the validation images that lie as far out or farther; the image
        itself counts as one."""
        n = len(self.calibration)
        farther = n - np.searchsorted(self.calibration, self._distance(sample), side="left")
        return np.asarray((1 + farther) / (n + 1))

    def _distance(self, sample: Features) -> Floats32:
        return np.asarray(
            ((_log_distances(self.features, self.coarse, sample) - self.centre) / self.spread).max(1)
        )

    def save(self, path: Path) -> None:
        clouds = {"features": self.features, "coarse": self.coarse}
        arrays = {
            f"{name}.{key}": value for name, cloud in clouds.items() for key, value in vars(cloud).items()
        }
        scale: dict[str, Any] = {
            "centre": self.centre,
            "spread": self.spread,
            "calibration": self.calibration,
        }
        write_atomically(path, lambda file: np.savez(file, **arrays, **scale))

    @staticmethod
    def load(path: Path) -> OODDetector:
        """Raises UnreadableRun when there is none, as for a run without validation images, or when
        it is damaged."""
        absent = f"there is no {path}: a run with a validation split leaves one, and without it unlike images cannot be told"
        return OODDetector.of_arrays(read_arrays(path, absent), path)

    @staticmethod
    def of_arrays(arrays: Mapping[str, Any], name: object) -> OODDetector:
        """What `save` wrote. Raises UnreadableRun, telling the `name`, when something is missing."""
        try:
            features, coarse = (
                ClassGaussians(
                    **{field.name: arrays[f"{kind}.{field.name}"] for field in fields(ClassGaussians)}
                )
                for kind in ("features", "coarse")
            )
            return OODDetector(features, coarse, arrays["centre"], arrays["spread"], arrays["calibration"])
        except KeyError as error:
            raise UnreadableRun(f"{name} is not a likeness of format 1: {error} is missing") from None


def fit_ood_detector(train: Features, validation: Features) -> OODDetector:
    """Distances from the training images, calibrated on validation images that took no part in training."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    with threadpool_limits(
        torch.get_num_threads(), user_api="blas"
    ):  # numpy's too: more threads than cores wait for each other
        features = ClassGaussians.fitted(train.features, train.labels, axes=AXES)
        coarse = ClassGaussians.fitted(train.coarse, train.labels, axes=train.coarse.shape[1])
        logs = _log_distances(features, coarse, train)
        raw = OODDetector(
            features, coarse, logs.mean(0), np.maximum(logs.std(0), 1e-6), np.zeros(0, np.float32)
        )
        return replace(raw, calibration=np.sort(raw._distance(validation)))


def _log_distances(features: ClassGaussians, coarse: ClassGaussians, sample: Features) -> Floats32:
    columns = [features.distances(sample.features), coarse.distances(sample.coarse)]
    return np.asarray(np.log(np.concatenate(columns, axis=1) + 1e-12))


def unlike(likeness: OODDetector, model: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """(N,) p-values of images (N,C,H,W) in [0,1]: `p <= likeness.rate` calls one unlike the
    training images."""
    first = next(model.parameters(), torch.empty(0))
    found = []
    for start in range(0, len(x), BATCH):
        part = x[start : start + BATCH]

        def run(images: Tensor = part) -> None:
            with evaluating(model), torch.no_grad():
                model(images.to(first.device, first.dtype))

        sample = observed(model, Split(part, torch.zeros(len(part), dtype=torch.int64), 1.0), run)[1]
        found.append(likeness.p_values(sample))
    return np.concatenate(found)


def observed(model: nn.Module, split: Split, run: Callable[[], T]) -> tuple[T, Features]:
    """The result of `run`, a pass of the model over the split in file order, and what it shows of the images.

    Of more than `MOST_IMAGES`, or fewer where their features are many, a part is kept, drawn with a
    fixed seed.
    """
    layer, width = feature_layer(model, split.shape)
    most = max(BATCH, min(MOST_IMAGES, MOST_VALUES // width))
    kept = np.zeros(len(split), dtype=bool)
    kept[np.random.default_rng(0).permutation(len(split))[:most]] = True
    with _watched(model, layer, torch.from_numpy(kept)) as (found, coarse):
        result = run()
    of_features, of_coarse = (
        torch.cat(list(parts.values())).detach().float().cpu().numpy() for parts in (found, coarse)
    )
    return result, Features(of_features, of_coarse, split.labels.cpu().numpy()[kept])


Parts = dict[int, Tensor]


@contextmanager
def _watched(model: nn.Module, layer: nn.Module, kept: Tensor) -> Iterator[tuple[Parts, Parts]]:
    """Features and coarse pixels of the images to keep, by batch."""
    found: Parts = {}
    coarse: Parts = {}
    end = 0

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal end
        end += len(inputs[0])
        coarse[end] = coarse_of(inputs[0][kept[end - len(inputs[0]) : end]].float())

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        values = features(module, inputs, output)
        found[end] = values[kept[end - len(values) : end]]

    handles = [model.register_forward_pre_hook(before), layer.register_forward_hook(after)]
    try:
        yield found, coarse
    finally:
        for handle in handles:
            handle.remove()


def coarse_of(x: Tensor) -> Tensor:
    """(N, d): the picture shrunk to at most 8×8 pixels, and for each channel the deviation from
    that, which tells noise."""
    small = F.adaptive_avg_pool2d(x, (min(THUMBNAIL, x.shape[2]), min(THUMBNAIL, x.shape[3])))
    rest = (x - F.interpolate(small, x.shape[2:])).square().mean((2, 3)).sqrt()
    return torch.cat([small.flatten(1), rest], dim=1)
