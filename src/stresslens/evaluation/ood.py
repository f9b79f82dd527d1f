"""Out-of-distribution (OOD) detection: Mahalanobis distances of features, conformal p-value.

An image is compared with the training images by three distances, because a model may map an image
unlike all of them close to their features:

1. the Mahalanobis distance of the features in front of the model's last linear layer to the nearest
   class (Lee et al. 2018);
2. with more than 64 features, the part that their first 64 principal axes do not explain;
3. the Mahalanobis distance of the image itself, scaled down to 8×8 pixels.

The logarithm of each distance is standardised by the training images, and the largest of the three
counts. Its rank among the validation images gives a conformal p-value (Vovk et al. 2005): of images
from the distribution of the validation images, at most a share a has p ≤ a.
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

from stresslens.core.array_file import FLOAT, ArrayFile, Form
from stresslens.core.data import PIECE_VALUES, Split
from stresslens.core.dtypes import as_input
from stresslens.core.errors import DataError
from stresslens.core.files import UnreadableRun, write_arrays
from stresslens.core.inspection import evaluating, feature_layer, features
from stresslens.core.pass_memory import images_at_once, logits_in_pieces
from stresslens.core.pieces import Rows

RATE = 0.01
"""False-alarm rate: the share of in-distribution images that may be called out of distribution."""
MOST_IMAGES, MOST_VALUES = 10_000, 2**25
"""Most images that a distance is fitted on, and most feature values in all (128 MiB of float32)."""
AXES = 64
THUMBNAIL = 8
SHRINKAGE = 0.3
"""Weight of the spherical covariance in the shrunk covariance, in [0, 1]. Without shrinkage, axes
along which the training images hardly vary would dominate the distance."""
BATCH = 512
LARGEST = 1e14
"""Features above this have squares whose sum may overflow float32."""

Floats32 = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Features:
    """Images of a split: features (N, D), coarse pixels (N, d; see `coarse_of`), labels (N,)."""

    features: Floats32
    coarse: Floats32
    labels: NDArray[np.int64]

    @property
    def measurable(self) -> NDArray[np.bool_]:
        """(N,) whether the distance of an image is finite: all its features are at most
        `LARGEST`."""
        return np.asarray((np.abs(self.features) <= LARGEST).all(1))

    def select(self, rows: NDArray[Any]) -> Features:
        return Features(self.features[rows], self.coarse[rows], self.labels[rows])


@dataclass(frozen=True)
class ClassGaussians:
    """One normal distribution per class with a shared covariance, on d principal axes."""

    mean: Floats32
    """(D,) mean of all classes together."""
    basis: Floats32
    """(D, d) orthonormal principal axes."""
    whiten: Floats32
    """(d, d) maps coordinates on the axes to where the shrunk covariance is the identity."""
    centres: Floats32
    """(K, d) means of the classes after whitening."""

    @staticmethod
    def fitted(values: Floats32, labels: NDArray[np.int64], *, axes: int) -> ClassGaussians:
        """Fits values (N, D) with labels (N,) on at most `axes` principal axes."""
        from stresslens.evaluation.principal_axes import principal_axes

        mean, width = values.mean(0), values.shape[1]
        centred = values - mean
        basis: NDArray[Any]
        if width > axes:
            basis = principal_axes(centred, min(axes, len(values)))
        else:
            basis = np.eye(width)
        projected = centred @ basis
        present, class_of = np.unique(labels, return_inverse=True)
        centres = np.stack([projected[class_of == k].mean(0) for k in range(len(present))])
        deviations = projected - centres[class_of]
        covariance = deviations.T.astype(np.float64) @ deviations / len(deviations)
        sphere = max(float(np.trace(covariance)) / len(covariance), 1e-12)
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere * np.eye(len(covariance))
        whiten = np.linalg.cholesky(np.linalg.inv(shrunk))
        return ClassGaussians(*(a.astype(np.float32) for a in (mean, basis, whiten, centres @ whiten)))

    @property
    def columns(self) -> int:
        """How many distances `distances` gives."""
        return 1 if self.basis.shape[0] == self.basis.shape[1] else 2

    def distances(self, values: Floats32) -> Floats32:
        """(N, 1) Mahalanobis distance of values (N, D) to the nearest class.

        With fewer axes than values: (N, 2), the second is the distance from the axes' subspace.
        """
        size = max(1, PIECE_VALUES // values.shape[1])
        pieces = [values[start : start + size] for start in range(0, len(values), size)]
        return np.concatenate([self._distances(piece) for piece in pieces or [values]])

    def _distances(self, values: Floats32) -> Floats32:
        centred = values - self.mean
        projected = centred @ self.basis
        white = projected @ self.whiten
        squares = (
            np.square(white).sum(1)[:, None] - 2 * white @ self.centres.T + np.square(self.centres).sum(1)
        )
        nearest = squares.min(1).clip(0)
        if self.columns == 1:
            return np.asarray(np.sqrt(nearest)[:, None])
        length = np.square(centred).sum(1)
        residual = (length - np.square(projected).sum(1)).clip(1e-6 * length)  # below it is rounding
        return np.asarray(np.sqrt(np.stack([nearest, residual], axis=1)))


FORMS = {
    f"{kind}.{key}": Form(FLOAT, tuple(f"{kind} {size}" for size in sizes), finite=True)
    for kind in ("features", "coarse")
    for key, sizes in (
        ("mean", ("values",)),
        ("basis", ("values", "axes")),
        ("whiten", ("axes", "axes")),
        ("centres", ("classes", "axes")),
    )
} | {
    "centre": Form(FLOAT, ("distances",), finite=True),
    "spread": Form(FLOAT, ("distances",), finite=True, least=1e-9),
    "calibration": Form(FLOAT, ("images",), nan=False),
}
"""The arrays of likeness.npz. A validation image without a distance is infinitely far away."""


@dataclass(frozen=True)
class OODDetector:
    """The fitted distances, with the validation images' distances that calibrate them."""

    features: ClassGaussians
    coarse: ClassGaussians
    centre: Floats32
    """(2 or 3,) mean of each log distance over the training images."""
    spread: Floats32
    """(2 or 3,) standard deviation of each log distance over the training images."""
    calibration: Floats32
    """(n,) largest standardised log distances of the validation images, sorted."""

    @property
    def rate(self) -> float:
        """The false-alarm rate: an image with p ≤ rate is called out of distribution.

        It is `RATE`, or with fewer than 99 validation images the lowest rate that they allow.
        """
        return max(RATE, 1 / (len(self.calibration) + 1))

    def p_values(self, sample: Features) -> NDArray[np.float64]:
        """(N,) conformal p-values in (0, 1].

        The p-value is the share of the validation images, and the image itself, whose distance is
        at least the image's.
        """
        for fitted, values in ((self.features, sample.features), (self.coarse, sample.coarse)):
            if values.shape[1:] != fitted.mean.shape:
                raise UnreadableRun(
                    f"the OOD detector (likeness.npz) is of another model: it describes {len(fitted.mean)} "
                    f"values of an image, and the model has {values.shape[1]}"
                )
        n = len(self.calibration)
        farther = n - np.searchsorted(self.calibration, self.distance(sample), side="left")
        return np.asarray((1 + farther) / (n + 1))

    def distance(self, sample: Features) -> Floats32:
        """(N,) the largest standardised log distance; infinite if the image has none."""
        measurable = sample.measurable
        distance = np.full(len(measurable), np.inf, np.float32)
        logs = _log_distances(self.features, self.coarse, sample.select(measurable))
        distance[measurable] = ((logs - self.centre) / self.spread).max(1)
        return distance

    def save(self, path: Path) -> None:
        gaussians = {"features": self.features, "coarse": self.coarse}
        arrays = {
            f"{name}.{key}": value
            for name, fitted in gaussians.items()
            for key, value in vars(fitted).items()
        }
        scale: dict[str, Any] = {
            "centre": self.centre,
            "spread": self.spread,
            "calibration": self.calibration,
        }
        write_arrays(path, {**arrays, **scale})

    @staticmethod
    def load(path: Path) -> OODDetector:
        """Opens likeness.npz of a run.

        Raises UnreadableRun if the file is damaged, or missing as for a run without validation
        images.
        """
        absent = (
            f"there is no {path}: a run with a validation split writes it, "
            "and without it out-of-distribution images cannot be detected"
        )
        run = path.parent
        anew = f"`stresslens evaluate {run} --split validation` makes it anew; without it no image is marked"
        remedy = anew if (run / "record.json").is_file() else "export the run again"
        return OODDetector.of_arrays(ArrayFile(FORMS, remedy).read(path, absent), path, remedy)

    @staticmethod
    def of_arrays(
        arrays: Mapping[str, Any], name: object, remedy: str = "export the run again"
    ) -> OODDetector:
        """The detector from the arrays that `save` wrote.

        Raises UnreadableRun, with the `name` in the message, if an array is missing or of another
        form.
        """
        checked = ArrayFile(FORMS, remedy).checked(arrays, name)
        features, coarse = (
            ClassGaussians(
                **{field.name: checked[f"{kind}.{field.name}"] for field in fields(ClassGaussians)}
            )
            for kind in ("features", "coarse")
        )
        detector = OODDetector(features, coarse, checked["centre"], checked["spread"], checked["calibration"])
        if len(detector.centre) != features.columns + coarse.columns:
            raise UnreadableRun(f"{name} is damaged: its distances are not those of its scale; {remedy}")
        return detector


def fit_ood_detector(train: Features, validation: Features) -> OODDetector:
    """Fits the distances on training images and calibrates them on validation images.

    The validation images must not have been trained on. Training images without a distance
    (`Features.measurable`) are left out. Raises DataError if fewer than half are left.
    """
    measurable = train.measurable
    if 2 * measurable.sum() < len(measurable):
        raise DataError(
            f"the features of {(~measurable).sum()} of {len(measurable)} training images are not finite or "
            f"above {LARGEST:g}, so there is no distance to them"
        )
    train = train.select(measurable)
    import scipy.linalg  # noqa: F401  # before the limit, which acts on what is loaded
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    # numpy's BLAS uses torch's number of threads: more threads than cores slow each other down.
    with threadpool_limits(torch.get_num_threads(), user_api="blas"):
        features = ClassGaussians.fitted(train.features, train.labels, axes=AXES)
        coarse = ClassGaussians.fitted(train.coarse, train.labels, axes=train.coarse.shape[1])
        logs = _log_distances(features, coarse, train)
        raw = OODDetector(
            features, coarse, logs.mean(0), np.maximum(logs.std(0), 1e-6), np.zeros(0, np.float32)
        )
        return replace(raw, calibration=np.sort(raw.distance(validation)))


def _log_distances(features: ClassGaussians, coarse: ClassGaussians, sample: Features) -> Floats32:
    columns = [features.distances(sample.features), coarse.distances(sample.coarse)]
    return np.asarray(np.log(np.concatenate(columns, axis=1) + 1e-12))


def ood_p_values(detector: OODDetector, model: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """(N,) conformal p-values of images (N,C,H,W) in [0,1].

    An image with `p <= detector.rate` is out of distribution.
    """
    p_values = []
    for part in torch.split(x, images_at_once(model, x.shape[1:], BATCH)):

        def run(images: Tensor = part) -> None:
            with evaluating(model), torch.no_grad():
                logits_in_pieces(model, as_input(images, model))

        sample = observed(model, Split(part, torch.zeros(len(part), dtype=torch.int64), 1.0), run)[1]
        p_values.append(detector.p_values(sample))
    return np.concatenate(p_values)


def observed(
    model: nn.Module, split: Split, run: Callable[[], T], *, at: tuple[nn.Module, int] | None = None
) -> tuple[T, Features]:
    """Calls `run` and returns its result together with the images' features, those of the layer `at`
    (`feature_layer`, which is looked for without it).

    `run` must pass the whole split through the model, in order; a pass that fails, as when memory runs
    out, does not count. Features of at most `MOST_IMAGES`
    images and at most `MOST_VALUES` values are kept; the images are drawn with a fixed seed.
    """
    layer, width = at or feature_layer(model, split.shape)
    images_at_once(model, split.shape, BATCH)  # measured once for each model, and not among these images
    kept = np.zeros(len(split), dtype=bool)
    kept[_observed_rows(len(split), width)] = True
    with _hooks(model, layer, torch.from_numpy(kept)) as found:
        result = run()
    values, coarse = (rows.filled.cpu().numpy() for rows in found)
    return result, Features(values, coarse, split.labels.cpu().numpy()[kept])


def observed_rows(model: nn.Module, split: Split) -> NDArray[np.int64]:
    """The positions of the images whose features `observed` keeps, in their order."""
    return _observed_rows(len(split), feature_layer(model, split.shape)[1])


def _observed_rows(n: int, width: int) -> NDArray[np.int64]:
    most = max(BATCH, min(MOST_IMAGES, MOST_VALUES // width))
    return np.sort(np.random.default_rng(0).permutation(n)[:most])


@contextmanager
def _hooks(model: nn.Module, layer: nn.Module, kept: Tensor) -> Iterator[tuple[Rows, Rows]]:
    """Collects features and coarse pixels of the kept images, with forward hooks."""
    count = int(kept.sum())
    features_of, coarse = Rows(count), Rows(count)
    begin = 0

    def keep(rows: Rows, values: Tensor) -> None:
        rows.put(values.detach().float(), int(kept[:begin].sum()))

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0]
        keep(coarse, coarse_of(x[kept[begin : begin + len(x)]].float()))

    def at_layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        values = features(module, inputs, output)
        keep(features_of, values[kept[begin : begin + len(values)]])

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal begin
        begin += len(inputs[0])

    handles = [
        model.register_forward_pre_hook(before),
        layer.register_forward_hook(at_layer),
        model.register_forward_hook(after),
    ]
    try:
        yield features_of, coarse
    finally:
        for handle in handles:
            handle.remove()


def coarse_of(x: Tensor) -> Tensor:
    """(N, d) coarse pixels: the image scaled down to at most 8×8 pixels, and its deviation from
    that.

    The deviation is a root mean square for each channel; it is large for noise.
    """
    size = max(1, PIECE_VALUES // x.shape[1:].numel())
    return torch.cat([_coarse_of(piece) for piece in torch.split(x, size)])


def _coarse_of(x: Tensor) -> Tensor:
    small = F.adaptive_avg_pool2d(x, (min(THUMBNAIL, x.shape[2]), min(THUMBNAIL, x.shape[3])))
    deviation = (x - F.interpolate(small, x.shape[2:])).square().mean((2, 3)).sqrt()
    return torch.cat([small.flatten(1), deviation], dim=1)
