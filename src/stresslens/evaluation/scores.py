"""Predictions and scores of a split: accuracy, AUROC, calibration, per-class tables, slices."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.core.answers import answered, confidence, predicted
from stresslens.core.cards import card
from stresslens.core.compute_choice import for_many_images
from stresslens.core.copies import CHECKED
from stresslens.core.data import Split
from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.dtypes import device_of, image_dtype
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.files import write_arrays
from stresslens.core.fingerprint import repeated
from stresslens.core.inspection import evaluating
from stresslens.core.outputs import logits_in
from stresslens.core.pass_memory import images_at_once
from stresslens.core.pieces import Rows, in_pieces, is_out_of_memory
from stresslens.core.tables import Percent, ResultTable, Tabular, cell_text
from stresslens.core.types import Estimate, Loss
from stresslens.evaluation.record import (
    BinRecord,
    Calibration,
    PerClass,
    Reliability,
    RiskCoverage,
    RunRecord,
    SliceRecord,
    SliceRow,
)
from stresslens.metrics import calibration, classification, ranking
from stresslens.metrics.intervals import Floats, wilson
from stresslens.metrics.slices import Slice, slices_of

Kind: TypeAlias = Literal["logits", "scores", "answers"]
BATCH = 512
TOP_CLASSES = 5
"""With more classes, the top-5 accuracy says something."""
MANY = 256
"""From more images on, a faster copy of the user's module pays for its check."""


@dataclass(frozen=True, repr=False)
class Predictions(Tabular):
    """scores (N, K), labels (N,), and index (N,), the positions in the split.

    `kind` says whether the scores are logits, or, of "answers", only 1 for the class that is predicted
    and 0 elsewhere, so that nothing is known of probabilities and ranks.
    """

    scores: Floats
    labels: classification.Labels
    index: classification.Labels
    kind: Kind = "logits"

    def __repr__(self) -> str:
        right = self.accuracy
        return f"Predictions({len(self.labels):,} images, {self.scores.shape[1]} classes, accuracy {right})"

    def _repr_html_(self) -> str:
        return card(
            f"Predictions of {len(self.labels):,} images: accuracy {cell_text(Percent(self.accuracy))}",
            self._table().html(),
        )

    def _table(self) -> ResultTable:
        answers, sure = predicted(self.scores), confidence(self.probabilities)
        columns = ("image", "label", "predicted", "probability", "correct")
        cells = zip(self.index, self.labels, answers, sure, answers == self.labels)
        return ResultTable(columns, [tuple(value.item() for value in row) for row in cells])

    @property
    def accuracy(self) -> Estimate:
        """The share of the images that are right, with Wilson's interval."""
        return classification.accuracy(self.scores, self.labels)

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {
            "scores": self.scores.astype(np.float32),
            "labels": self.labels,
            "index": self.index,
            "kind": np.array(self.kind),
        }
        write_arrays(path, arrays)

    @staticmethod
    def of_arrays(arrays: dict[str, np.ndarray]) -> Predictions:
        named = str(arrays["kind"])
        kind: Kind = "logits" if named == "logits" else "answers" if named == "answers" else "scores"
        return Predictions(arrays["scores"].astype(np.float64), arrays["labels"], arrays["index"], kind)

    def calibrated(self, temperature: float) -> Predictions:
        """The same predictions with logits divided by a temperature; their order does not
        change."""
        return replace(self, scores=self.scores / temperature)

    @property
    def answered(self) -> Predictions:
        """Those of the images that have an answer; in most cases all."""
        rows = answered(self.scores)
        return self if rows.all() else self.select(rows)

    def select(self, rows: np.ndarray) -> Predictions:
        return replace(self, scores=self.scores[rows], labels=self.labels[rows], index=self.index[rows])

    @property
    def probabilities(self) -> Floats:
        """(N, K); NaN for an image without an answer."""
        scores = np.where(answered(self.scores)[:, None], self.scores, np.nan)
        return np.exp(classification.log_softmax(scores)) if self.kind == "logits" else scores


def logits_of(model: nn.Module, split: Split, *, size: int = BATCH, group: ProcessGroup = ALONE) -> Tensor:
    """(N, K) logits of a split on the CPU, computed in batches of `size`, or of as many images as the
    memory of a pass allows (`images_at_once`).

    The model runs in evaluation mode and in its parameters' precision; its modes are restored
    afterwards. With several processes, each computes a part and all get every logit. Logits may be
    NaN or infinite: such an image has no answer (`core.answers`). Raises ConfigError if the model
    cannot take the images or does not return logits.
    """
    device, dtype = device_of(model), image_dtype(model, split.shape)
    size = images_at_once(model, split.shape, min(size, len(split)))
    batches = split.batches(size * group.part[1], dtype=dtype, part=group.part)
    logits = Rows(len(split))
    with evaluating(model), torch.no_grad():
        for batch in batches:
            x = batch.x.to(device)
            if len(x):
                for piece in in_pieces(partial(_logits, model, x), len(x), size):
                    logits.put(piece)
    return group.gather(logits.filled)


def _logits(model: nn.Module, x: Tensor, rows: slice) -> Tensor:
    """The logits of some of the images x, on the CPU."""
    x = x[rows]
    try:
        output = model(x)
    except (RuntimeError, ValueError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"{type(model).__name__} cannot take images of shape {tuple(x.shape[1:])}: {error}; "
            "a module gets images as they are, only a run resizes pictures"
        ) from error
    logits = logits_in(output, model)
    if logits.ndim != 2 or len(logits) != len(x):
        raise ConfigError(
            f"{type(model).__name__} returned {tuple(logits.shape)} for {len(x)} images; "
            f"expected logits of shape ({len(x)}, classes)"
        )
    return logits.cpu()


def predictions_of(model: nn.Module, split: Split) -> Predictions:
    """Predictions of every image of the split."""
    logits = logits_of(model, split).double().numpy()
    return Predictions(logits, split.labels.cpu().numpy(), np.arange(len(split)))


def predictions_of_module(model: nn.Module, split: Split) -> Predictions:
    """As `predictions_of`, of a module of the user's own: of more than `MANY` images by a copy that is
    faster (`for_many_images`), which gives the same logits to rounding."""
    if len(split) <= MANY:
        return predictions_of(model, split)
    return predictions_of(for_many_images(model, split.floats(split.images[:CHECKED])), split)


def right(predictions: Predictions) -> np.ndarray:
    """(N,) whether each image is classified correctly; one without an answer is not."""
    answers: np.ndarray = predicted(predictions.scores) == predictions.labels
    return answers


def distinct_predictions(predictions: Predictions, split: Split) -> Predictions:
    """The predictions of a split without images that repeat an earlier one, pixel by pixel and with
    the same label; a Notice says how many."""
    again = repeated(split.pieces(), split.labels).numpy()
    if not again.any():
        return predictions
    warnings.warn(
        f"{again.sum():,} of {len(again):,} images repeat others, pixel by pixel; each counts once",
        Notice,
        stacklevel=3,
    )
    return predictions.select(~again)


def watched(model: nn.Module, split: Split, loss: Loss, *, group: ProcessGroup = ALONE) -> dict[str, float]:
    """The loss and accuracy of a split that training monitors between epochs; with more than
    `TOP_CLASSES` classes also the top-5 accuracy.

    `loss` is applied to the whole split at once. An image without an answer is wrong, and the loss
    is then NaN; `no_answer` is the share of such images, if there are any.
    """
    logits, labels = logits_of(model, split, group=group), split.labels.cpu()
    correct = int((predicted(logits) == labels).sum())
    figures = {"loss": float(loss(logits=logits, y=labels)), "accuracy": correct / len(labels)}
    if logits.shape[1] > TOP_CLASSES:
        among = classification.in_top_k(logits.float().numpy(), labels.numpy(), 5)
        figures["top5"] = int(among.sum()) / len(labels)
    if missing := int((~answered(logits)).sum()):
        figures |= {"loss": math.nan, "no_answer": missing / len(labels)}
    return figures


def scores_of(
    predictions: Predictions, train_labels: classification.Labels | None, *, temperature: float | None = None
) -> dict[str, Estimate]:
    """Every named score of a split, with its n and interval. Without training labels there is no majority
    baseline.

    With a `temperature`, the calibration scores are also given for the logits divided by it. An
    image without an answer is wrong, and ranks last in the risk-coverage curve; `no_answer` is the
    share of such images, if there are any. The other scores of probabilities are those of the
    images with an answer, which their n says.
    """
    return _scores_of(predictions, train_labels, temperature, _rankings_of(predictions))


def _rankings_of(predictions: Predictions) -> dict[str, ranking.Ranking]:
    if predictions.kind == "answers":
        return {}
    predictions = predictions.answered
    probabilities, labels = predictions.probabilities, predictions.labels
    return {"auroc": ranking.auroc(probabilities, labels), "auprc": ranking.auprc(probabilities, labels)}


def _scores_of(
    predictions: Predictions,
    train_labels: classification.Labels | None,
    temperature: float | None,
    rankings: dict[str, ranking.Ranking],
) -> dict[str, Estimate]:
    scores, labels = predictions.scores, predictions.labels
    named = {"accuracy": classification.accuracy(scores, labels)}
    if scores.shape[1] > TOP_CLASSES and predictions.kind != "answers":
        named["top5"] = classification.top_k(scores, labels, 5)
    means = classification.averages(scores, labels)
    named["balanced_accuracy"] = means["macro"]["recall"]
    named |= {f"{kind}_{name}": means[kind][name] for kind in means for name in ("precision", "f1")}
    if len(labels) > len(predictions.answered.labels):
        named["no_answer"] = wilson(len(labels) - len(predictions.answered.labels), len(labels))
    if predictions.kind == "logits":
        named |= _scores_of_probabilities(predictions.answered)
        if temperature is not None:
            calibrated = _scores_of_probabilities(predictions.answered.calibrated(temperature))
            named |= {f"{name}_calibrated": estimate for name, estimate in calibrated.items()}
    named |= {name: score.mean for name, score in rankings.items()}
    if predictions.kind != "answers":
        named["aurc"] = calibration.aurc(predictions.probabilities, labels)
    if train_labels is not None:
        named["majority_baseline"] = classification.majority_baseline(train_labels, labels)
    return named


def _scores_of_probabilities(predictions: Predictions) -> dict[str, Estimate]:
    probabilities, labels = predictions.probabilities, predictions.labels
    return {
        "cross_entropy": classification.cross_entropy(predictions.scores, labels),
        "brier": calibration.brier(probabilities, labels),
        "ece": calibration.ece(probabilities, labels),
    }


def calibration_of(validation: Predictions) -> Calibration:
    """The temperature fitted on the validation labels (temperature scaling), as in record.json.

    Images without an answer are left out.
    """
    answered = validation.answered
    found = calibration.temperature_scaling(answered.scores, answered.labels)
    return Calibration(
        temperature=found.used,
        fitted_on="validation",
        n=len(answered.labels),
        fitted=found.fitted,
        gain=found.gain,
        helps=found.helps,
    )


@dataclass(frozen=True)
class SplitSummary:
    """What a run's record holds of a split: reliability of logits alone, no curve of answers alone."""

    scores: dict[str, Estimate]
    per_class: PerClass
    confusion: list[list[int]]
    risk_coverage: RiskCoverage | None
    slices: list[SliceRecord]
    reliability: Reliability | None

    def put(self, record: RunRecord, split: str) -> None:
        """Into the record of a run, as what is known of the split."""
        record.scores = {**record.scores, split: self.scores}
        record.per_class = {**record.per_class, split: self.per_class}
        record.confusion = {**record.confusion, split: self.confusion}
        record.slices = {**record.slices, split: self.slices}
        if self.risk_coverage is not None:
            record.risk_coverage = {**record.risk_coverage, split: self.risk_coverage}
        if self.reliability is not None:
            record.reliability = {**record.reliability, split: self.reliability}


def summary(
    predictions: Predictions,
    split: Split,
    train_labels: classification.Labels,
    *,
    temperature: float | None = None,
    slices: Sequence[str] = (),
) -> SplitSummary:
    """Scores, per-class table, confusion matrix, curves and slices of a split. `slices` names columns of
    the split that are always shown, however many values they have."""
    tables = slices_of(split.columns, right(predictions), named=slices, **colours_of(split))
    return _summary(predictions, tables, train_labels, temperature)


def summary_without_images(predictions: Predictions, columns: Mapping[str, NDArray[Any]]) -> SplitSummary:
    """As `summary`, where the images are not known, only further values (N,) of them by name."""
    return _summary(predictions, slices_of(columns, right(predictions)), None, None)


def _summary(
    predictions: Predictions,
    tables: Sequence[Slice],
    train_labels: classification.Labels | None,
    temperature: float | None,
) -> SplitSummary:
    labels = predictions.labels
    confusion = classification.confusion_matrix(predictions.scores, labels)
    rankings = _rankings_of(predictions)
    per_class = classification.per_class(confusion) | {name: found.each for name, found in rankings.items()}
    curve = None
    if predictions.kind != "answers":
        coverage, risk = calibration.risk_coverage(predictions.probabilities, labels)
        curve = RiskCoverage(coverage=coverage.tolist(), risk=risk.tolist())
    reliability = None
    if predictions.kind == "logits":
        calibrated = _bins_of(predictions.calibrated(temperature)) if temperature is not None else None
        reliability = Reliability(bins=_bins_of(predictions), calibrated=calibrated)
    return SplitSummary(
        _scores_of(predictions, train_labels, temperature, rankings),
        PerClass(**per_class, support=confusion.sum(1).tolist()),
        confusion.tolist(),
        curve,
        [_slice_record(each) for each in tables],
        reliability,
    )


def _slice_record(found: Slice) -> SliceRecord:
    rows = [SliceRow(value=row.value, n=row.accuracy.n, accuracy=row.accuracy) for row in found.rows]
    return SliceRecord(by=found.by, p=found.p, p_holm=found.p_holm, rows=rows)


def _bins_of(predictions: Predictions) -> list[BinRecord]:
    return [
        BinRecord(
            low=each.low,
            high=each.high,
            n=each.n,
            confidence=each.confidence if each.n else None,
            accuracy=each.accuracy if each.n else None,
        )
        for each in calibration.reliability(predictions.answered.probabilities, predictions.answered.labels)
    ]


def colours_of(split: Split) -> dict[str, Floats]:
    """(N,) brightness and, for colour images, (N,) saturation.

    Brightness is the mean of the pixels in [0, 1]; saturation is the mean of the largest minus the
    smallest channel.
    """
    n, is_colour = len(split), split.shape[0] == 3
    # made before the batches: small results between them would keep their memory apart
    facts = {name: np.empty(n) for name in ("brightness", *(["saturation"] if is_colour else []))}
    for x, _, index in split.batches(split.piece(BATCH)):
        rows = index.cpu().numpy()
        facts["brightness"][rows] = x.mean((1, 2, 3)).cpu().numpy()
        if is_colour:
            low, high = x.aminmax(dim=1)
            facts["saturation"][rows] = (high - low).mean((1, 2)).cpu().numpy()
    return facts
