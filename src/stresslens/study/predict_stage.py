"""The stage that predicts and scores a split."""

from __future__ import annotations

import time

from torch import nn

from stresslens.core.data import Data
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation import ood, scores
from stresslens.evaluation.example_images import save_examples
from stresslens.evaluation.record import LikenessRecord, RunRecord, Scoring
from stresslens.evaluation.saved_model import open_model
from stresslens.training.autotune import compute_config
from stresslens.training.loop import Show
from stresslens.training.task import Task
from stresslens.training.tracking import Tracking


def predict_stage(
    task: Task, folder: RunFolder, data: Data, record: RunRecord, show: Show, tracking: Tracking
) -> None:
    model = compute_config(task).place(open_model(folder, trust=True, module=task.module))
    if task.until is not None:
        predict_split(folder, model, data, "validation", record)
        return
    seen, known = ood.observed(model, data.train, lambda: scores.predictions_of(model, data.train))
    if data.validation is not None:
        _, held_out = ood.observed(
            model, data.validation, lambda: predict_split(folder, model, data, "validation", record)
        )
        fitted = ood.fit_ood_detector(known, held_out)
        fitted.save(folder.likeness)
        record.likeness = LikenessRecord(
            rate=fitted.rate, n=len(held_out.labels), fitted_on=len(known.labels)
        )
    else:
        record.likeness = LikenessRecord(
            rate=None, why="without a validation split no distance says how unlike is too unlike"
        )
    if data.test is not None:
        predict_split(folder, model, data, "test", record)
    record.scores = {**record.scores, "train": scores.scores_of(seen, seen.labels)}


def predict_split(
    folder: RunFolder, model: nn.Module, data: Data, split: str, record: RunRecord
) -> scores.Predictions:
    """Predictions of one split, saved beside the model, and its scores in the record; a read of
    test is counted.

    Validation also gives the temperature that the probabilities of test are calibrated by.
    """
    images = data.splits[split]
    began = time.perf_counter()
    predictions = scores.predictions_of(model, images)
    took = Scoring(seconds=time.perf_counter() - began, images=len(images))
    record.scoring = {**record.scoring, split: took}
    predictions.save(folder.predictions(split))
    if split == "validation":
        record.calibration = scores.calibration_of(predictions)
    temperature = record.calibration.temperature if split == "test" and record.calibration else None
    train_labels = data.train.labels.cpu().numpy()
    found = scores.summary(predictions, images, train_labels, temperature=temperature, slices=data.slices)
    record.scores = {**record.scores, split: found.scores}
    record.per_class = {**record.per_class, split: found.per_class}
    record.confusion = {**record.confusion, split: found.confusion}
    record.risk_coverage = {**record.risk_coverage, split: found.risk_coverage}
    record.slices = {**record.slices, split: found.slices}
    if found.reliability is not None:
        record.reliability = {**record.reliability, split: found.reliability}
    if split == "test":
        record.reads_of_test += 1
        save_examples(folder.examples, images, predictions)
    return predictions
