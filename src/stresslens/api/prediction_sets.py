"""Guarantees from Python: conformal sets of arrays, and those of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stresslens.api.words import public_call
from stresslens.core.answers import answered
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.fingerprint import image_keys
from stresslens.evaluation.guarantees import Wanted, guarantees_of, wanted
from stresslens.evaluation.predictor import Predictor
from stresslens.metrics.conformal import (
    IMAGE_DRAWS,
    CalibrationScores,
    calibrated_sets,
    row_keys,
    uniform_of,
)
from stresslens.metrics.intervals import Floats

SUM = 1e-3
"""Probabilities of a row add up to 1 but for this rounding."""


@public_call()
def prediction_sets(
    calibration: np.ndarray,
    labels: np.ndarray | Sequence[int],
    probabilities: np.ndarray,
    *,
    coverage: float = 0.95,
    sets: str = "lac",
    by_class: bool = False,
    randomised: bool = True,
    penalty: float | None = None,
    rank: int | None = None,
) -> np.ndarray:
    """(N, K) truth values: conformal sets of classes that hold the true one with a chance of at least
    `coverage`, if the N images and those that calibrate are exchangeable (split conformal prediction).

    `calibration` (n, K) are probabilities of images that the model was not trained on, with `labels` (n,)
    from 0 on; `probabilities` (N, K) are those of the images that the sets are for. A row with NaN is no
    answer: it does not calibrate, and its set holds all classes. `sets` are "lac" (the smallest), "aps"
    or "raps", with a random part where `randomised`, the same in every call. `penalty` and `rank` are
    the parameters of "raps"; a part of the calibration images chooses those that are not given. With
    `by_class` the coverage holds in every class. Sets hold all classes where too few images calibrate.
    Raises ConfigError and DataError for other input."""
    asked = wanted(coverage, sets, by_class)
    held_out = _probabilities("calibration", calibration)
    given = _probabilities("probabilities", probabilities)
    classes = held_out.shape[1]
    if given.shape[1] != classes:
        raise DataError(f"calibration has {classes} classes, and probabilities {given.shape[1]}")
    truth = np.asarray(labels)
    if truth.shape != held_out.shape[:1] or truth.dtype.kind not in "iu":
        raise DataError(
            f"labels are {truth.dtype} of shape {truth.shape}; expected a whole number for each of "
            f"{len(held_out)} calibration images"
        )
    if len(truth) and not 0 <= truth.min() <= truth.max() < classes:
        raise DataError(f"labels run from {truth.min()} to {truth.max()}; {classes} classes count from 0")
    if sets != "raps" and (penalty is not None or rank is not None):
        given_name = "penalty" if penalty is not None else "rank"
        raise ConfigError(f"{given_name} is of sets='raps', not of {sets!r}; leave it out")
    if penalty is not None and not 0 <= penalty < np.inf:
        raise ConfigError(f"penalty is {penalty!r}; expected a number from 0 up")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 0):
        raise ConfigError(f"rank is {rank!r}; expected a whole number from 0 up")
    rule = replace(asked.rule, randomised=randomised, penalty=penalty, rank=rank)
    kept = CalibrationScores.of(held_out, truth.astype(np.int64))
    u = uniform_of(row_keys(given), IMAGE_DRAWS)
    return calibrated_sets(kept, coverage, rule, classes).of(given, u)


def _probabilities(name: str, values: Any) -> Floats:
    """(N, K) probabilities as the caller gives them. Raises DataError for anything else."""
    try:
        found: Floats = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} holds something other than numbers; expected (images, classes)") from None
    if found.ndim != 2 or found.shape[1] < 2:
        raise DataError(
            f"{name} has the shape {found.shape}; expected (images, classes), two classes or more"
        )
    rows = found[answered(found)] if len(found) else found
    if len(rows) and (rows.min() < 0 or np.abs(rows.sum(1) - 1).max() > SUM):
        raise DataError(
            f"{name}: rows have negative values or do not add up to 1, so they are no probabilities; give "
            "the output of softmax"
        )
    return found


def guaranteed(predictor: Predictor, asked: Wanted, split: Split, probabilities: Floats) -> NDArray[Any]:
    """What `predict` returns with a guarantee, from the calibrated probabilities (N, K) of the images.
    Raises ConfigError where nothing calibrates it."""
    calibrated = guarantees_of(asked, predictor.calibration(), predictor.facts.classes)
    if calibrated.sets is not None:
        keys = [image_keys(split.floats(piece).to(torch.float32)) for piece in split.pieces()]
        return calibrated.sets.of(probabilities, uniform_of(torch.cat(keys).numpy(), IMAGE_DRAWS))
    if calibrated.selective is not None:
        return np.where(calibrated.sure(probabilities)[:, None], probabilities, np.nan)
    return np.stack([calibrated.found(k, probabilities) for k in calibrated.recall], 1)
