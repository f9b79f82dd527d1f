"""Guarantees that go with predictions: sets of classes at a coverage, answers with few errors, finding a
class at a recall. Held-out images of the run calibrate them."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stresslens.core.answers import answered
from stresslens.core.array_file import FLOAT, INTEGER, TEXT, ArrayFile, Form
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.files import UnreadableRun, arrays_in
from stresslens.core.run_folder import RunFolder
from stresslens.core.spelling import closest
from stresslens.core.text import counted, enumeration
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.evaluation.scores import Predictions
from stresslens.metrics.conformal import (
    SET_SCORES,
    CalibrationScores,
    PredictionSets,
    SetRule,
    calibrated_sets,
    expected_coverage,
    fewest_calibration_images,
)
from stresslens.metrics.intervals import Floats
from stresslens.metrics.selective import (
    RecallThreshold,
    SelectiveThreshold,
    fewest_of_class,
    recall_threshold,
    selective_threshold,
)

FORMS = {
    "labels": Form(INTEGER, ("images",), least=0),
    "of_label": Form(FLOAT, ("images",), finite=True),
    "above": Form(FLOAT, ("images",), finite=True),
    "rank": Form(INTEGER, ("images",), least=1),
    "confidence": Form(FLOAT, ("images",), finite=True),
    "u": Form(FLOAT, ("images",), finite=True, least=0),
    "tuning": Form(FLOAT, ("tuning images", "classes"), finite=True),
    "source": Form(TEXT, ()),
    "caveat": Form(TEXT, ()),
}
"""The arrays of calibration images in an exported file."""


@dataclass(frozen=True)
class CalibrationImages:
    """The scores of calibration images, and which images they are."""

    scores: CalibrationScores
    source: str
    """For example "validation images"."""
    caveat: str = ""
    """Why the guarantee may not hold exactly, in words; empty where it does."""

    def content(self) -> bytes:
        """The arrays of `FORMS` as an npz file."""
        content = io.BytesIO()
        np.savez_compressed(
            content, **vars(self.scores), source=np.array(self.source), caveat=np.array(self.caveat)
        )
        return content.getvalue()

    @staticmethod
    def of_content(content: bytes, name: object) -> CalibrationImages:
        """From what `content` gave. Raises UnreadableRun, with the `name`, if it is damaged."""
        found = ArrayFile(FORMS, "export the run again").checked(arrays_in(io.BytesIO(content), name), name)
        source, caveat = str(found.pop("source")), str(found.pop("caveat"))
        return CalibrationImages(CalibrationScores(**found), source, caveat)


def calibration_images(folder: RunFolder, record: RunRecord) -> CalibrationImages:
    """The calibration images of a run: those that were set aside, or else its validation images, by their
    saved predictions. Raises ConfigError where it has neither, and UnreadableRun where the file is
    damaged."""
    split = calibration_split(folder, record)
    predictions = Predictions.of_arrays(folder.load_predictions(split))
    calibration, caveat = record.calibration, ""
    if split == "validation":
        training = record.training
        chose = ["the epoch"] if training.chosen_epoch is not None and training.select != "last" else []
        chose += ["the epochs of its members"] if record.ensemble is not None else []
        chose += ["its members"] if record.ensemble is not None and record.ensemble.steps else []
        chose += ["the penalty"] if training.penalties else []
        chose += ["the temperature"] if calibration and calibration.helps else []
        caveat = (
            f"the same images chose {enumeration(chose)}, so it may hold a little less often; "
            "train with train.calibration=0.5 to set images aside"
            if chose
            else ""
        )
    return images_of(predictions.calibrated(record.temperature), f"{split} images", str(folder.path), caveat)


def check_calibrated(folder: RunFolder, split: str) -> None:
    """Raises ConfigError where a run has no images that calibrate what is then scored on a split: for want
    of held-out images, or because the split itself calibrates or was trained on."""
    record = read_record(folder)
    source = calibration_split(folder, record)
    if split in ("train", source):
        why = "were trained on" if split == "train" else "calibrate the sets and thresholds themselves"
        raise ConfigError(f"--split {split}: these images {why}; score them on test")


def calibration_split(folder: RunFolder, record: RunRecord) -> str:
    """The split whose images calibrate. Raises ConfigError where the run has no predictions of it."""
    split = "calibration" if "calibration" in record.data.splits else "validation"
    if split not in record.data.splits:
        raise ConfigError(
            f"{folder.path} has no validation images, and nothing else can calibrate sets and thresholds; "
            "train with the data set's option `validation`"
        )
    if not folder.predictions(split).is_file():
        raise ConfigError(
            f"{folder.path} has no predictions of its {split} images, which calibrate sets and thresholds; "
            f"`stresslens evaluate {folder.path} --split {split}` makes them"
        )
    return split


def calibration_content(folder: RunFolder) -> bytes | None:
    """The calibration images of a run as an npz file; None where it has none."""
    try:
        return calibration_images(folder, read_record(folder)).content()
    except UnreadableRun as error:
        warnings.warn(f"sets and thresholds are not exported: {error}", Notice, stacklevel=2)
    except ConfigError:  # there are none
        pass
    return None


def images_of(predictions: Predictions, source: str, name: str, caveat: str = "") -> CalibrationImages:
    """The images of some predictions, as calibration images. Raises ConfigError for predictions without
    probabilities, and where no image has an answer."""
    if predictions.kind != "logits":
        raise ConfigError(f"{name} has answers and no scores; sets and thresholds need probabilities")
    scores = CalibrationScores.of(predictions.probabilities, predictions.labels)
    if not len(scores):
        raise ConfigError(f"{name}: none of the {source} has finite scores, so nothing can be calibrated")
    return CalibrationImages(scores, source, caveat)


@dataclass(frozen=True)
class Wanted:
    """What is to be guaranteed of predictions."""

    coverage: float | None = None
    rule: SetRule = field(default_factory=SetRule)
    wrong_at_most: float | None = None
    recall: Mapping[str, float] = field(default_factory=dict)
    """The wanted recall by the name of a class."""

    def __bool__(self) -> bool:
        return bool(self.options)

    @property
    def options(self) -> list[str]:
        """The options that are given, as the command line writes them."""
        given = {
            "--coverage": self.coverage is not None,
            "--wrong-at-most": self.wrong_at_most is not None,
            "--recall": bool(self.recall),
        }
        return [name for name, there in given.items() if there]


def wanted(
    coverage: float | None = None,
    sets: str | None = None,
    by_class: bool = False,
    wrong_at_most: float | None = None,
    recall: Mapping[str, Any] | Sequence[str] | None = None,
) -> Wanted:
    """What a user asks for. `recall` are texts "CLASS=0.95", or shares by class. Raises ConfigError."""
    if coverage is None and (sets is not None or by_class):
        raise ConfigError(f"{'--by-class' if by_class else '--sets'} belongs to --coverage; give both")
    score = "lac" if sets is None else sets
    if score not in SET_SCORES:
        raise ConfigError(f"--sets {score}: {closest(score, list(SET_SCORES))}")
    _check_share("--coverage ", coverage, "0.95")
    _check_share("--wrong-at-most ", wrong_at_most, "0.01")
    shares = dict(recall) if isinstance(recall, Mapping) else _shares(recall or ())
    for name, share in shares.items():
        _check_share(f"--recall {name}=", share, "0.95")
    return Wanted(coverage, SetRule(score, by_class), wrong_at_most, shares)


def _check_share(option: str, value: Any, example: str) -> None:
    if value is None:
        return
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 0 < value < 1:
        raise ConfigError(f"{option}{value}: expected a share between 0 and 1, such as {example}")


def _shares(texts: Sequence[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            share = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ConfigError(f"--recall {text}: expected CLASS=SHARE, for example malignant=0.95")
        if name in shares:
            raise ConfigError(f"--recall {text}: {name} is given twice")
        shares[name] = share
    return shares


@dataclass(frozen=True)
class Guaranteed:
    """What is guaranteed of one image; None where nothing was asked for."""

    classes: tuple[str, ...] | None = None
    """The set, the most probable class first."""
    answers: bool | None = None
    """Whether the model is sure enough to answer."""
    found: tuple[str, ...] | None = None
    """The classes, among those asked for, that the image may be of."""

    @property
    def in_words(self) -> str:
        """For example "set: cat, dog; not sure enough to answer; found: dog"."""
        said = [] if self.classes is None else [f"set: {enumeration(self.classes) or 'empty'}"]
        said += [] if self.answers is None else ["answers" if self.answers else "not sure enough to answer"]
        said += [] if self.found is None else [f"found: {enumeration(self.found) or 'none'}"]
        return "; ".join(said)

    def as_json(self) -> dict[str, Any]:
        values = {"set": self.classes, "answers": self.answers, "found": self.found}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}


@dataclass(frozen=True)
class Guarantees:
    """Calibrated sets and thresholds for K classes."""

    classes: Sequence[str]
    images: CalibrationImages
    sets: PredictionSets | None
    selective: SelectiveThreshold | None
    recall: Mapping[int, RecallThreshold]
    """By the number of the class."""

    def of(self, probabilities: Floats, u: Floats) -> list[Guaranteed]:
        """For images with probabilities (N, K), NaN for one without an answer, and uniform random
        numbers u (N,). Without an answer the set has all classes, and every class may be it."""
        inside = None if self.sets is None else self.sets.of(probabilities, u)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        sure = self.sure(probabilities)
        found = {k: self.found(k, probabilities) for k in self.recall}
        return [
            Guaranteed(
                None if inside is None else tuple(self.classes[k] for k in order[i] if inside[i, k]),
                None if self.selective is None else bool(sure[i]),
                tuple(self.classes[k] for k, rows in found.items() if rows[i]) if found else None,
            )
            for i in range(len(probabilities))
        ]

    def sure(self, probabilities: Floats) -> np.ndarray:
        """(N,) whether the model is sure enough to answer."""
        threshold = -math.inf if self.selective is None else self.selective.threshold
        known = answered(probabilities)
        return known & (np.where(known, probabilities.max(1), -math.inf) > threshold)

    def found(self, k: int, probabilities: Floats) -> np.ndarray:
        """(N,) whether each image may be of class k: its probability reaches the threshold, or it has no
        answer."""
        return np.asarray(~(probabilities[:, k] < self.recall[k].threshold))

    @property
    def sentences(self) -> list[str]:
        """What is guaranteed, by which images, and what could not be calibrated."""
        said = [*self._of_sets(), *self._of_errors(), *self._of_recall()]
        return [*said, f"Caveat: {self.images.caveat}."] if self.images.caveat else said

    def _of_sets(self) -> list[str]:
        if self.sets is None:
            return []
        coverage, rule, source = self.sets.coverage, self.sets.rule, self.images.source
        share, n = f"{100 * coverage:g} %", int(self.sets.n.sum() if rule.by_class else self.sets.n[0])
        whom = "images of every class" if rule.by_class else "images"
        parameters = f", penalty {rule.penalty:g} from rank {rule.rank} on" if rule.score == "raps" else ""
        said = [
            f"Sets hold the true class of at least {share} of {whom} like the {n:,} {source} that "
            f"calibrate them ({rule.name}{parameters})."
        ]
        fewest = fewest_calibration_images(coverage)
        if unbounded := self.sets.unbounded:
            if rule.by_class:
                few = enumeration([f"{self.classes[k]} ({self.sets.n[k]})" for k in unbounded])
                said.append(
                    f"{counted(len(unbounded), 'class is', 'classes are')} in every set: {share} needs at "
                    f"least {fewest:,} calibration images of a class, and there are fewer of {few}."
                )
            else:
                said.append(
                    f"Every set has all classes: {share} needs at least {fewest:,} calibration images."
                )
        elif not rule.by_class:
            low, high = expected_coverage(n, coverage)
            said.append(
                f"Another {n:,} images would give a coverage between {100 * low:.1f} and {100 * high:.1f} % "
                "(in 95 of 100 draws)."
            )
        return said

    def _of_errors(self) -> list[str]:
        found = self.selective
        if found is None:
            return []
        most, n = f"{100 * found.risk:g} %", f"{found.n:,} {self.images.source}"
        if not found.holds:
            more = (
                f"it would take about {found.needed:,}"
                if found.needed is not None
                else "its surest answers are wrong more often, so more images would not help"
            )
            return [f"No answers: no threshold of the confidence holds {most} with these {n}; {more}."]
        above = f"above a confidence of {found.threshold:.4f}" if found.threshold >= 0 else "always"
        return [
            f"The model answers {above}: at most {most} of its answers are wrong, with "
            f"{100 * found.level:g} % confidence; so it does on {found.answered:,} of {n}, with "
            f"{counted(found.errors, 'error')}."
        ]

    def _of_recall(self) -> list[str]:
        said = []
        for k, found in self.recall.items():
            name, share = self.classes[k], f"{100 * found.recall:g} %"
            of = f"the {found.n:,} {self.images.source} of {name}"
            if found.holds:
                said.append(
                    f"{name} is found where its probability is at least {found.threshold:.4g}: this finds at "
                    f"least {share} of its images, with {100 * found.level:g} % confidence, and missed "
                    f"{found.missed} of {of} (their own threshold {found.usual:.4g}, interval "
                    f"{found.threshold:.4g} to {found.high:.4g})."
                )
            else:
                said.append(
                    f"{name} is found everywhere: a threshold for {share} needs at least "
                    f"{fewest_of_class(found.recall):,} calibration images of it, and there are {found.n}."
                )
        return said


def guarantees_of(asked: Wanted, images: CalibrationImages, classes: Sequence[str]) -> Guarantees:
    """Sets and thresholds, calibrated. Raises ConfigError for a recall of a class that is not there."""
    scores, names = images.scores, list(classes)
    sets = None
    if asked.coverage is not None:
        sets = calibrated_sets(scores, asked.coverage, asked.rule, len(names))
    selective = None
    if asked.wrong_at_most is not None:
        selective = selective_threshold(scores.confidence, scores.right, asked.wrong_at_most)
    recall = {}
    for name, share in asked.recall.items():
        if name not in names:
            raise ConfigError(f"--recall {name}={share:g}: no class has this name; {closest(name, names)}")
        k = names.index(name)
        recall[k] = recall_threshold(scores.of_label[scores.labels == k], share)
    return Guarantees(names, images, sets, selective, recall)
