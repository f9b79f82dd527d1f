"""The prediction stage of a run: predicts every split, scores it, and fits the out-of-distribution
detector."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace

from torch import nn

from stresslens.core import devices
from stresslens.core.data import Data
from stresslens.core.errors import DataError, Notice
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation import ood, scores
from stresslens.evaluation.duplicates import copies_in_earlier_splits, copies_not_noted
from stresslens.evaluation.ensembles import members_in, score_members
from stresslens.evaluation.example_images import save_examples
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.record import (
    LikenessRecord,
    Note,
    RunRecord,
    Scoring,
)
from stresslens.evaluation.run_data import DataPlace
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.slice_search import search_slices
from stresslens.evaluation.soups import KIND, basin_findings
from stresslens.metrics.leaked_copies import scores_without_copies
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.soups import soup_members
from stresslens.training.task import Task
from stresslens.training.tracking import Tracking


def predict_stage(
    task: Task, folder: RunFolder, data: Data, record: RunRecord, show: Show, tracking: Tracking
) -> None:
    """Predicts and scores every split; for a trial of a sweep only validation. Fits the OOD
    detector on the training images, with a threshold from validation."""
    model = compute_config(task).place(open_model(folder, trust=True, module=task.module))
    if task.until is not None:
        predict_split(folder, model, data, "validation", record)
        return
    seen, known = ood.observed(model, data.train, lambda: scores.predictions_of(model, data.train))
    if data.validation is not None:
        devices.release_memory()
        _, held_out = ood.observed(
            model, data.validation, lambda: predict_split(folder, model, data, "validation", record)
        )
        devices.release_memory()
        _fit_ood_detector(folder, known, held_out, record)
    else:
        record.likeness = LikenessRecord(
            rate=None, why="there is no validation split to set the out-of-distribution threshold"
        )
    for split in ("calibration", "test"):
        if split in data.splits:
            predict_split(folder, model, data, split, record)
    for split in ("validation", "calibration", "test"):
        _score_soup(folder, model, data, split, record)
    record.scores = {**record.scores, "train": scores.scores_of(seen, seen.labels)}


def _fit_ood_detector(
    folder: RunFolder, known: ood.Features, held_out: ood.Features, record: RunRecord
) -> None:
    """Saves the OOD detector; where the features allow none, the record and a Notice say why."""
    try:
        detector = ood.fit_ood_detector(known, held_out)
    except DataError as error:
        warnings.warn(f"out-of-distribution images will not be marked: {error}", Notice, stacklevel=2)
        folder.likeness.unlink(missing_ok=True)
        record.likeness = LikenessRecord(rate=None, why=str(error))
        return
    detector.save(folder.likeness)
    left = int(known.measurable.sum())
    record.likeness = LikenessRecord(rate=detector.rate, n=len(held_out.labels), fitted_on=left)
    if out := len(known.labels) - left:
        record.likeness.why = f"{out} training images are left out: their features are not finite"


def _score_soup(folder: RunFolder, model: nn.Module, data: Data, split: str, record: RunRecord) -> None:
    """Scores the members of a soup on a split that it has predicted, and notes where they do not average."""
    if record.ensemble is None or not record.ensemble.is_soup or split not in data.splits:
        return
    whole = scores.Predictions.of_arrays(folder.load_predictions(split))
    members = soup_members(model, record.ensemble)
    score_members(members, data.splits[split], whole, record.ensemble, split)
    others = [note for note in record.findings if note.kind != KIND]
    record.findings = [*others, *basin_findings(record.ensemble)]


def _note_missing_answers(predictions: scores.Predictions, split: str, record: RunRecord) -> None:
    """Says in the record, and in a Notice, how many images of a split have no answer."""
    n = len(predictions.labels)
    kind, missing = f"{split}: no answer", n - len(predictions.answered.labels)
    record.findings = [note for note in record.findings if note.kind != kind]
    if missing:
        message = (
            f"the scores of {missing} of {n} {split} images are not finite (NaN or infinity): "
            "no answer, which counts as wrong"
        )
        record.findings = [*record.findings, Note(kind=kind, message=message)]
        warnings.warn(message, Notice, stacklevel=2)


def predict_again(folder: RunFolder, model: nn.Module, data: Data, split: str, record: RunRecord) -> None:
    """As `predict_split`. With the validation split also fits the OOD detector anew, where the run had
    one and its file is missing or damaged."""
    if split != "validation" or not _ood_detector_is_lost(folder, record):
        predict_split(folder, model, data, split, record)
        return
    _, known = ood.observed(model, data.train, lambda: scores.predictions_of(model, data.train))
    _, held_out = ood.observed(
        model, data.splits[split], lambda: predict_split(folder, model, data, split, record)
    )
    _fit_ood_detector(folder, known, held_out, record)


def evaluate_again(
    folder: RunFolder,
    split: str,
    *,
    trust: bool = False,
    module: nn.Module | None = None,
    data: DataPlace = None,
    find_slices: bool = False,
) -> RunRecord:
    """Predicts and scores a split of a finished run anew, and returns its record; with `find_slices` also
    searches slices of low accuracy. `module` and `data` are as in `open_run`. Raises ConfigError where the
    data set has changed or has no such split."""
    opened = finished(folder, split, trust=trust, device="cpu", module=module, data=data)
    with opened as (model, found, record):
        if copies_not_noted(record.data):
            record.data.copies = copies_in_earlier_splits(found)
        if find_slices:
            _predict_with_slices(folder, model, found, split, record)
        else:
            predict_again(folder, model, found, split, record)
        _score_soup(folder, model, found, split, record)
    return record


def _predict_with_slices(
    folder: RunFolder, model: nn.Module, data: Data, split: str, record: RunRecord
) -> None:
    """As `predict_split`; the same pass gives the features among which slices are searched."""
    images = data.splits[split]
    predictions, sample = ood.observed(
        model, images, lambda: predict_split(folder, model, data, split, record)
    )
    rows = ood.observed_rows(model, images)
    found = search_slices(folder, split, images, predictions, sample, rows)
    record.found_slices = {**record.found_slices, split: found}


def _ood_detector_is_lost(folder: RunFolder, record: RunRecord) -> bool:
    if record.likeness is None or record.likeness.rate is None:
        return False
    try:
        ood.OODDetector.load(folder.likeness)
    except UnreadableRun:
        return True
    return False


def predict_split(
    folder: RunFolder, model: nn.Module, data: Data, split: str, record: RunRecord
) -> scores.Predictions:
    """Predicts one split. Saves the predictions in the run folder and the scores in the record, and
    counts a read of test.

    Validation also gives the temperature that calibrates the probabilities of test, if it helps.
    """
    images = data.splits[split]
    began = time.perf_counter()
    predictions = scores.predictions_of(model, images)
    took = Scoring(seconds=time.perf_counter() - began, images=len(images))
    record.scoring = {**record.scoring, split: took}
    predictions.save(folder.predictions(split))
    _note_missing_answers(predictions, split, record)
    if split == "validation":
        record.calibration = scores.calibration_of(predictions)
    calibrated = split == "test" and record.calibration is not None and record.calibration.helps
    temperature = record.calibration.temperature if calibrated and record.calibration else None
    train_labels = data.train.labels.cpu().numpy()
    summary = scores.summary(predictions, images, train_labels, temperature=temperature, slices=data.slices)
    without = scores_without_copies(scores.right(predictions), record.data.copies.get(split, []))
    replace(summary, scores=summary.scores | without).put(record, split)
    if record.ensemble is not None:
        score_members(members_in(model), images, predictions, record.ensemble, split)
    if split == "test":
        record.reads_of_test += 1
        save_examples(folder.examples, images, predictions)
    return predictions
