"""A linear probe: the last layer alone, fitted to the features of a net that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import evaluating, feature_layer, features_of
from stresslens.metrics.classification import log_softmax

BATCH = 256


@dataclass(frozen=True)
class Tried:
    """One penalty and what it came to on the validation images, if there are any."""

    penalty: float
    accuracy: float | None = None
    loss: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        return (self.accuracy or 0.0, -(self.loss or 0.0))


def fit_linear_probe(model: nn.Module, data: Data, penalties: Sequence[float]) -> list[Tried]:
    """Fits the model's last linear layer, by multinomial logistic regression on features that are
    computed once.

    For each penalty λ the mean cross-entropy plus λ/2 ‖W‖² of the weights for features of deviation
    1 is minimised (L-BFGS); the penalty with the best accuracy on validation stays, of equals the
    one with the lower loss (Kornblith et al. 2019, who choose it so). Raises ConfigError for a net
    without a linear layer at its end, and without the images to choose by.
    """
    layer, _ = feature_layer(model, data.shape)
    if not isinstance(layer, nn.Linear) or layer.out_features != len(data.classes) or layer.bias is None:
        raise ConfigError(
            "fine_tune.layers: probe needs a net with a linear layer and its bias at the end, which this one has not"
        )
    if data.validation is None and len(penalties) > 1:
        raise ConfigError(
            "fine_tune.penalties are chosen on validation images, which there are none of; give a single one"
        )
    known, labels = _features(model, data.train), data.train.labels.cpu().numpy()
    mean, deviation = known.mean(0), np.maximum(known.std(0), 1e-6)
    known = (known - mean) / deviation
    held_out = None if data.validation is None else (_features(model, data.validation) - mean) / deviation
    tried, solutions = [], []
    for penalty in sorted(penalties, reverse=True):
        weights, bias = _fitted(known, labels, penalty, len(data.classes))
        solutions.append((weights, bias))
        if held_out is None or data.validation is None:
            tried.append(Tried(penalty))
            continue
        logits, truth = held_out @ weights.T + bias, data.validation.labels.cpu().numpy()
        loss = -log_softmax(logits)[np.arange(len(truth)), truth].mean()
        tried.append(Tried(penalty, float((logits.argmax(1) == truth).mean()), float(loss)))
    weights, bias = solutions[max(range(len(tried)), key=lambda k: tried[k].rank)]
    scaled = weights / deviation
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(scaled))
        layer.bias.copy_(torch.from_numpy(bias - scaled @ mean))
    return tried


def _features(model: nn.Module, split: Split) -> NDArray[np.float64]:
    first = next(model.parameters())
    with evaluating(model):
        parts = [
            features_of(model, batch.x.to(first.device))[0].cpu()
            for batch in split.batches(BATCH, dtype=first.dtype)
        ]
    return torch.cat(parts).double().numpy()


def _fitted(
    x: NDArray[np.float64], y: NDArray[np.int64], penalty: float, classes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights (K, D) and bias (K,); a class that no image has keeps the weights 0 and a bias below
    all others'."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1 / (penalty * len(x)), max_iter=2000).fit(x, y)
    weights, bias = np.zeros((classes, x.shape[1])), np.full(classes, -30.0)
    both = len(fitted.classes_) == 2  # sklearn keeps one row for two classes
    weights[fitted.classes_] = np.concatenate([-fitted.coef_, fitted.coef_]) / 2 if both else fitted.coef_
    bias[fitted.classes_] = (
        np.concatenate([-fitted.intercept_, fitted.intercept_]) / 2 if both else fitted.intercept_
    )
    return weights, bias
