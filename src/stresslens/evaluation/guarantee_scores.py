"""How sets and thresholds do on images with labels that took no part in calibrating them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation.guarantees import (
    CalibrationImages,
    Guarantees,
    Wanted,
    calibration_images,
    guarantees_of,
)
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.scores import Predictions, right
from stresslens.metrics.classification import Labels
from stresslens.metrics.conformal import (
    IMAGE_DRAWS,
    SET_SCORES,
    SetRule,
    calibrated_sets,
    row_keys,
    uniform_of,
)
from stresslens.metrics.intervals import Floats, wilson
from stresslens.metrics.set_coverage import SetScores, set_scores


@dataclass(frozen=True)
class FoundClass:
    """A class that is found where its probability reaches a threshold; `scores` are recall, precision and
    specificity."""

    threshold: float
    scores: Mapping[str, Estimate]


@dataclass(frozen=True)
class GuaranteeScores:
    """Scores of sets by the name of their rule, of answers, and of classes by their number."""

    coverage: float
    sets: Mapping[str, SetScores]
    share: Estimate | None
    """The share of the images that is answered."""
    answered: Estimate | None
    """The share of the answers that is wrong."""
    recall: Mapping[int, FoundClass]
    sentences: Sequence[str]

    def named(self, classes: Sequence[str]) -> dict[str, Estimate]:
        """Every score under a name."""
        named: dict[str, Estimate] = {}
        for name, scores in self.sets.items():
            key = name.lower().replace(" ", "_")
            named |= {f"coverage_{key}": scores.coverage, f"set_size_{key}": scores.size}
        if self.share is not None and self.answered is not None:
            named |= {"answered": self.share, "wrong_answers": self.answered}
        for k, found in self.recall.items():
            named |= {f"{name}_of_{classes[k]}": each for name, each in found.scores.items()}
        return named

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        sets = {
            name: {
                "coverage": scores.coverage.as_json(),
                "size": scores.size.as_json(),
                "sizes": {str(size): n for size, n in scores.sizes.items()},
                "empty": scores.empty,
                "by_class": {c: each.as_json() for c, each in zip(classes, scores.by_class) if each.n},
                "by_size": {size: each.as_json() for size, each in scores.by_size.items()},
            }
            for name, scores in self.sets.items()
        }
        recall = {
            classes[k]: {
                "threshold": found.threshold if np.isfinite(found.threshold) else None,
                **{name: each.as_json() for name, each in found.scores.items()},
            }
            for k, found in self.recall.items()
        }
        answers = {}
        if self.share is not None and self.answered is not None:
            answers = {"answers": {"share": self.share.as_json(), "wrong": self.answered.as_json()}}
        return {
            **({"coverage": self.coverage, "sets": sets} if sets else {}),
            **answers,
            **({"recall": recall} if recall else {}),
            "sentences": list(self.sentences),
        }


def score_on_split(
    asked: Wanted, folder: RunFolder, record: RunRecord, split: str, images: CalibrationImages | None = None
) -> GuaranteeScores:
    """As `score_guarantees`, by the predictions that a run saved for a split. Without `images`, those of
    the run calibrate."""
    predictions = Predictions.of_arrays(folder.load_predictions(split))
    if images is None:
        images = calibration_images(folder, record)
        predictions = predictions.calibrated(record.temperature)
    return score_guarantees(asked, images, predictions, record.classes)


def score_guarantees(
    asked: Wanted, images: CalibrationImages, predictions: Predictions, classes: Sequence[str]
) -> GuaranteeScores:
    """The scores of what is asked for on predictions with calibrated logits. Every way to make sets is
    scored, that which is asked for first. Raises ConfigError for predictions without probabilities."""
    if predictions.kind != "logits":
        raise ConfigError("these are answers without scores; sets and thresholds need probabilities")
    calibrated = guarantees_of(asked, images, classes)
    probabilities, labels = predictions.probabilities, predictions.labels
    u = uniform_of(row_keys(probabilities), IMAGE_DRAWS)
    sets = {}
    if asked.coverage is not None:
        others = [SetRule(score, by_class) for by_class in (False, True) for score in SET_SCORES]
        for rule in dict.fromkeys([asked.rule, *others]):
            made = calibrated.sets if rule == asked.rule else None
            made = made or calibrated_sets(images.scores, asked.coverage, rule, len(classes))
            sets[rule.name] = set_scores(made.of(probabilities, u), labels)
    share = wrong = None
    if asked.wrong_at_most is not None:
        sure = calibrated.sure(probabilities)
        share = wilson(int(sure.sum()), len(labels))
        wrong = wilson(int((sure & ~right(predictions)).sum()), int(sure.sum()))
    recall = {k: _found_class(calibrated, k, probabilities, labels) for k in calibrated.recall}
    return GuaranteeScores(asked.coverage or 0.0, sets, share, wrong, recall, calibrated.sentences)


def _found_class(calibrated: Guarantees, k: int, probabilities: Floats, labels: Labels) -> FoundClass:
    found, of_class = calibrated.found(k, probabilities), labels == k
    hits, others = int((found & of_class).sum()), int((~of_class).sum())
    scores = {
        "recall": wilson(hits, int(of_class.sum())),
        "precision": wilson(hits, int(found.sum())),
        "specificity": wilson(int((~found & ~of_class).sum()), others),
    }
    return FoundClass(calibrated.recall[k].threshold, scores)
