"""Adapter that lets a scikit-learn-like classifier (an estimator) stand in for a torch model.

The estimator is fitted once and saved as plain arrays.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import PluginValue
from stresslens.core.array_file import BOOL, FLOAT, INTEGER, TEXT, ArrayFile, Form
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.files import UnreadableRun, write_arrays, write_json
from stresslens.core.run_folder import EstimatorCard, RunFolder
from stresslens.core.types import Estimator

ARRAYS = ArrayFile(
    {},
    "copy it from elsewhere, or delete the run's folder and fit it again",
    others=Form(BOOL + INTEGER + FLOAT + TEXT, finite=True),
)
"""estimator.npz: arrays of any name and shape, which only the estimator knows."""


class Estimated(nn.Module):
    """An estimator as a torch module: images (N,C,H,W) in [0,1] → scores (N,K) on the CPU.

    The scores are used as logits. The module has no parameters and passes no gradient back.
    """

    no_gradient = "an estimator"

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, x: Tensor) -> Tensor:
        with threadpool_limits(torch.get_num_threads()):
            scores = self.estimator.scores(x.detach().cpu().numpy().astype(np.float32, copy=False))
        return torch.from_numpy(np.asarray(scores, np.float32))


def build_estimator(value: PluginValue, seed: int, *, base: Path, trust: bool = True) -> Estimator:
    """Builds the estimator that a configuration or a card names; it is not fitted yet."""
    build = registry.resolve("estimators", value, path=("estimator",), base=base, trust=trust)
    estimator: Estimator = build(seed=seed)
    if not all(hasattr(estimator, name) for name in ("fit", "scores", "arrays")):
        name = registry.name_and_options("estimators", value)[0]
        raise ConfigError(
            f"estimator {name} returned a {type(estimator).__name__}; "
            "expected an object with fit, scores and arrays"
        )
    return estimator


def fit_estimator(estimator: Estimator, data: Data) -> list[str]:
    """Fits the estimator to the training images and returns the first line of each warning.

    Raises DataError if a class has no training image.
    """
    split = data.train
    absent = [name for k, name in enumerate(data.classes) if not bool((split.labels == k).any())]
    if absent:
        raise DataError(
            f"{data.name}: no training image shows {', '.join(absent[:5])}; "
            "an estimator needs some of every class"
        )
    images = split.floats(split.images[:]).cpu().numpy().astype(np.float32, copy=False)
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(images, split.labels.cpu().numpy())
    return [str(warning.message).partition("\n")[0] for warning in caught]


def save_estimator(folder: RunFolder, estimator: Estimator, card: EstimatorCard) -> None:
    """Writes the fitted arrays, and the card that says how to build the estimator again."""
    arrays: dict[str, Any] = estimator.arrays
    write_arrays(folder.estimator, arrays)
    write_json(folder.estimator_card, card.as_json())


def open_estimator(folder: RunFolder, card: EstimatorCard, *, trust: bool = False) -> Estimated:
    """Opens a run's fitted estimator.

    Raises UnreadableRun if a file is missing or damaged, or if the two files do not belong
    together.
    """
    estimator = build_estimator(card.estimator, card.seed, base=folder.path, trust=trust)
    estimator.arrays = ARRAYS.read(
        folder.estimator, f"there is no {folder.estimator}; the run has not been fitted"
    )
    model = Estimated(estimator)
    try:
        scores = model(torch.zeros(2, *card.shape))
    except Exception as error:  # numpy and scikit-learn raise many kinds for arrays of another estimator
        files = f"{folder.estimator_card} and {folder.estimator.name}"
        raise UnreadableRun(
            f"{files} do not belong together: {first_line(error)}; {ARRAYS.remedy}"
        ) from error
    if scores.shape != (2, len(card.classes)):
        raise UnreadableRun(
            f"{folder.estimator} gives {scores.shape[1]} scores "
            f"for the {len(card.classes)} classes of its card"
        )
    return model
