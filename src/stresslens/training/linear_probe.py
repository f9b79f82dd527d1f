"""Linear probe: fits the last layer alone, on the features of a net whose other layers stay frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.core.answers import answered, predicted
from stresslens.core.data import Data, Split
from stresslens.core.dtypes import as_input, device_of, image_dtype
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import evaluating, feature_layer, features_of, is_plain
from stresslens.core.pass_memory import images_at_once
from stresslens.metrics.classification import log_softmax

BATCH = 256
CHECKED = 8


@dataclass(frozen=True)
class ProbeFit:
    """One penalty, with accuracy and loss on the validation images if there are any."""

    penalty: float
    accuracy: float | None = None
    loss: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        return (self.accuracy or 0.0, -(self.loss or 0.0))


def fit_linear_probe(model: nn.Module, data: Data, penalties: Sequence[float]) -> list[ProbeFit]:
    """Fits the model's last linear layer in place, by multinomial logistic regression on features
    that are computed once; returns the fit of each penalty.

    For each penalty λ, L-BFGS minimises the mean cross-entropy plus λ/2 ‖W‖², where W are the
    weights for features of standard deviation 1. The penalty with the best accuracy on validation is
    kept, of equal ones that with the lower loss (chosen as in Kornblith et al. 2019). Raises
    ConfigError for a net that does not end in a linear layer, and for several penalties without
    validation images.
    """
    layer, _ = feature_layer(model, data.shape)
    exact = type(layer) is nn.Linear and is_plain(layer)
    if (
        not isinstance(layer, nn.Linear)
        or not exact
        or layer.out_features != len(data.classes)
        or layer.bias is None
    ):
        raise ConfigError(
            "fine_tune.layers: probe needs a net with a linear layer with bias at its end "
            "(torch.nn.Linear, no class derived from it, without hooks), and this net has none"
        )
    _check_head(model, (layer.weight.detach(), layer.bias.detach()), data.train)
    if data.validation is None and len(penalties) > 1:
        raise ConfigError(
            "fine_tune.penalties are chosen on validation images, and there are none; give a single penalty"
        )
    features, labels = _features(model, data.train), data.train.labels.cpu().numpy()
    mean, deviation = features.mean(0), np.maximum(features.std(0), 1e-6)
    features = (features - mean) / deviation
    held_out = None if data.validation is None else (_features(model, data.validation) - mean) / deviation
    fits, solutions = [], []
    for penalty in sorted(penalties, reverse=True):
        weights, bias = _logistic_regression(features, labels, penalty, len(data.classes))
        solutions.append((weights, bias))
        if held_out is None or data.validation is None:
            fits.append(ProbeFit(penalty))
            continue
        logits, truth = held_out @ weights.T + bias, data.validation.labels.cpu().numpy()
        known = answered(logits)
        loss = -log_softmax(logits[known])[np.arange(known.sum()), truth[known]].mean()
        fits.append(ProbeFit(penalty, float((predicted(logits) == truth).mean()), float(loss)))
    weights, bias = solutions[max(range(len(fits)), key=lambda k: fits[k].rank)]
    scaled = weights / deviation
    fitted = torch.from_numpy(scaled), torch.from_numpy(bias - scaled @ mean)
    with torch.no_grad():
        layer.weight.copy_(fitted[0])
        layer.bias.copy_(fitted[1])
    _check_head(model, fitted, data.train)  # the features may depend on these weights
    return fits


def _check_head(model: nn.Module, head: tuple[Tensor, Tensor], split: Split) -> None:
    """Raises ConfigError unless the logits of a few images are what a layer with this weight and bias
    gives for their features."""
    x = as_input(next(split.batches(CHECKED)).x, model)
    with evaluating(model), torch.no_grad():
        features, logits = features_of(model, x)
        expected = F.linear(features.to(logits), *(values.to(logits) for values in head))
    if expected.shape != logits.shape or not torch.allclose(expected, logits, rtol=1e-3, atol=1e-3):
        raise ConfigError(
            "fine_tune.layers: probe fits the last linear layer, and the logits of this net are not what "
            "that layer gives for its inputs (a scale, a hook or shared weights); use layers: head"
        )


def _features(model: nn.Module, split: Split) -> NDArray[np.float64]:
    """(N, D), in evaluation mode."""
    dtype = image_dtype(model, split.shape)
    with evaluating(model):
        parts = [
            features_of(model, batch.x.to(device_of(model)))[0].cpu()
            for batch in split.batches(images_at_once(model, split.shape, BATCH), dtype=dtype)
        ]
    return torch.cat(parts).double().numpy()


def _logistic_regression(
    x: NDArray[np.float64], y: NDArray[np.int64], penalty: float, classes: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Weights (K, D) and bias (K,) for features x (N, D). A class without an image has weights 0 and
    a bias below all others."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1 / (penalty * len(x)), max_iter=2000).fit(x, y)
    coefficients, intercepts = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # sklearn keeps one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weights, bias = np.zeros((classes, x.shape[1])), np.full(classes, -30.0)
    weights[fitted.classes_], bias[fitted.classes_] = coefficients, intercepts
    return weights, bias
