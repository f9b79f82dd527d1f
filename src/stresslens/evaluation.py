"""Model + split → predictions → named scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.layers import evaluating
from stresslens.core.results import write_atomically
from stresslens.core.types import Estimate, Loss
from stresslens.metrics import classification as measures
from stresslens.metrics.intervals import Floats

BATCH = 512


@dataclass(frozen=True)
class Predictions:
    """scores (N, K), labels (N,), index (N,) places in the split; `kind` says whether the scores are logits."""

    scores: Floats
    labels: measures.Labels
    index: measures.Labels
    kind: Literal["logits", "scores"] = "logits"

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {
            "scores": self.scores.astype(np.float32),
            "labels": self.labels,
            "index": self.index,
            "kind": np.array(self.kind),
        }
        write_atomically(path, lambda file: np.savez(file, **arrays))

    @staticmethod
    def of_arrays(arrays: dict[str, np.ndarray]) -> Predictions:
        kind: Literal["logits", "scores"] = "logits" if str(arrays["kind"]) == "logits" else "scores"
        return Predictions(arrays["scores"].astype(np.float64), arrays["labels"], arrays["index"], kind)

    @property
    def probabilities(self) -> Floats:
        return np.exp(measures.log_softmax(self.scores)) if self.kind == "logits" else self.scores


def logits_of(model: nn.Module, split: Split, *, size: int = BATCH) -> Tensor:
    """(N, K) logits of a split on the CPU, in evaluation mode and the parameters' own precision, in batches of `size`.

    The model's modes come back as they were. Raises DataError when a logit is not finite, and ConfigError when the model
    cannot take the images or returns anything but logits.
    """
    first = next(model.parameters(), torch.empty(0))
    with evaluating(model), torch.no_grad():
        parts = [_logits(model, batch.x.to(first.device)).cpu() for batch in split.batches(size, dtype=first.dtype)]
    logits = torch.cat(parts)
    if not torch.isfinite(logits).all():
        bad = (~torch.isfinite(logits).all(1)).nonzero().flatten()
        raise DataError(f"the model returns NaN or infinity for {len(bad)} of {len(logits)} images, first for image {int(bad[0])}")
    return logits


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    try:
        logits = model(x)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(f"{type(model).__name__} cannot take images of shape {tuple(x.shape[1:])}: {error}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(
            f"{type(model).__name__} returned {got} for {len(x)} images; expected logits of shape ({len(x)}, classes)"
        )
    return logits


def predictions_of(model: nn.Module, split: Split) -> Predictions:
    """A pass over the whole split, nothing dropped."""
    logits = logits_of(model, split).double().numpy()
    return Predictions(logits, split.labels.cpu().numpy(), np.arange(len(split)))


def watched(model: nn.Module, split: Split, loss: Loss) -> dict[str, float]:
    """Loss (by the given function, over the whole split at once) and accuracy: what training looks at between epochs."""
    logits = logits_of(model, split)
    labels = split.labels.cpu()
    right = int((logits.argmax(1) == labels).sum())
    return {"loss": float(loss(logits, labels)), "accuracy": right / len(labels)}


def scores_of(predictions: Predictions, train_labels: measures.Labels) -> dict[str, Estimate]:
    """Every named score of a split, with its n and interval."""
    scores, labels = predictions.scores, predictions.labels
    classes = scores.shape[1]
    named = {"accuracy": measures.accuracy(scores, labels)}
    if classes > 5:
        named["top5"] = measures.top_k(scores, labels, 5)
    named["balanced_accuracy"] = measures.balanced_accuracy(measures.confusion_matrix(scores, labels))
    if predictions.kind == "logits":
        named["cross_entropy"] = measures.cross_entropy(scores, labels)
    named["majority_baseline"] = measures.majority_baseline(train_labels, labels)
    return named


def summary(predictions: Predictions, train_labels: measures.Labels) -> dict[str, Any]:
    """What a run's record holds of a split: scores, per-class table and confusion matrix as plain values."""
    confusion = measures.confusion_matrix(predictions.scores, predictions.labels)
    per_class = {name: [e.as_json() for e in estimates] for name, estimates in measures.per_class(confusion).items()}
    return {
        "scores": {name: estimate.as_json() for name, estimate in scores_of(predictions, train_labels).items()},
        "per_class": {**per_class, "support": confusion.sum(1).tolist()},
        "confusion": confusion.tolist(),
    }
