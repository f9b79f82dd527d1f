"""What a run's record says of a split."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.core.data import Data, Split
from stresslens.core.errors import Notice
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.evaluation import scores
from stresslens.evaluation.record import PerClass, RunRecord
from stresslens.evaluation.saved_model import open_model
from stresslens.evaluation.scores import Predictions, SplitSummary
from stresslens.metrics import calibration
from stresslens.study import predict_stage, stages
from stresslens.training.task import Task

UNCALIBRATED = [
    "accuracy",
    "top5",
    "balanced_accuracy",
    "macro_precision",
    "macro_f1",
    "weighted_precision",
    "weighted_f1",
    "cross_entropy",
    "brier",
    "ece",
    "auroc",
    "auprc",
    "aurc",
    "majority_baseline",
]
CALIBRATED = ["cross_entropy_calibrated", "brier_calibrated", "ece_calibrated"]


def predictions(n: int = 200, classes: int = 6, seed: int = 0) -> Predictions:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    return Predictions(
        generator.normal(size=(n, classes)) * 3 + 4 * np.eye(classes)[labels], labels, np.arange(n)
    )


def images(n: int = 200, channels: int = 1, **columns: Any) -> Split:
    x = torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    return Split(
        x,
        torch.zeros(n, dtype=torch.int64),
        1.0,
        {name: np.asarray(values) for name, values in columns.items()},
    )


def as_json(found: SplitSummary) -> str:
    """The summary as a part of a record."""
    parts = {name: {"test": part} for name, part in vars(found).items() if part is not None}
    return json.dumps(
        RunRecord(status="finished", classes=list("abcdef"), **parts).as_json(), allow_nan=False
    )


def test_a_record_that_repeats_the_means_of_the_classes_is_kept_as_it_is() -> None:
    figure = Estimate(0.5, 0.4, 0.6, 10, "wilson", 0.95, "images").as_json()
    table = {"support": [3, 7], "macro": {"f1": figure}, "weighted": {"f1": figure}}
    assert PerClass.model_validate(table).as_json() == table


def test_a_record_has_every_part_and_is_json() -> None:
    found = scores.summary(predictions(), images(), np.zeros(3, np.int64), temperature=2.0)
    assert list(vars(found)) == ["scores", "per_class", "confusion", "risk_coverage", "slices", "reliability"]
    assert sorted(found.scores) == sorted(UNCALIBRATED + CALIBRATED)
    per_class = found.per_class.as_json()
    assert list(per_class) == ["precision", "recall", "f1", "auroc", "auprc", "support"]
    assert [len(column) for column in per_class.values()] == [6] * 6
    assert len(found.reliability.bins) == len(found.reliability.calibrated) == 15
    assert [each.by for each in found.slices] == ["brightness"]
    (written,) = (each.as_json() for each in found.slices)
    assert list(written) == ["by", "p", "p_holm", "rows"]
    assert list(written["rows"][0]) == ["value", "n", "accuracy"]
    as_json(found)
    for estimate in found.scores.values():
        assert estimate.low <= estimate.value <= estimate.high
    for each in found.reliability.bins:
        written = each.as_json()
        assert (written["accuracy"] is None) == (each.n == 0) == (written["confidence"] is None)


def test_an_absent_class_is_null_in_the_record() -> None:
    some = predictions()
    found = scores.summary(replace(some, labels=some.labels.clip(max=4)), images(), np.zeros(3, np.int64))
    assert found.per_class.as_json()["auroc"][5]["value"] is None
    assert found.per_class.support[5] == 0
    assert found.reliability.as_json()["calibrated"] is None
    assert not {*CALIBRATED} & {*found.scores}
    as_json(found)


def test_scores_that_are_no_logits_have_no_calibration() -> None:
    found = scores.summary(
        replace(predictions(), kind="scores"), images(), np.zeros(3, np.int64), temperature=2.0
    )
    assert found.reliability is None
    assert sorted(found.scores) == sorted({*UNCALIBRATED} - {"cross_entropy", "brier", "ece"})


def test_colour_images_are_also_sliced_by_saturation_and_columns() -> None:
    split = images(channels=3, camera=["a", "b"] * 100, patient=np.arange(200))
    found = scores.summary(predictions(), split, np.zeros(3, np.int64))
    assert [each.by for each in found.slices] == ["brightness", "saturation", "camera"]
    named = scores.summary(predictions(), split, np.zeros(3, np.int64), slices=["patient"])
    assert [each.by for each in named.slices] == ["brightness", "saturation", "camera", "patient"]


def test_colours_are_the_means_of_pixels() -> None:
    split = images(n=1100, channels=3)
    found = scores.colours_of(split)
    x = split.images.numpy()
    assert found["brightness"] == pytest.approx(x.mean((1, 2, 3)), abs=1e-6)
    assert found["saturation"] == pytest.approx((x.max(1) - x.min(1)).mean((1, 2)), abs=1e-6)


def test_test_is_calibrated_by_validations_temperature(task_of: Callable[..., Task]) -> None:
    task = task_of("mlp", epochs=5)
    record = stages.carry_out(task)
    folder = RunFolder(task.folder)
    validation, test = (
        Predictions.of_arrays(folder.load_predictions(split)) for split in ("validation", "test")
    )
    fitted = record.calibration
    assert (fitted.fitted_on, fitted.n) == ("validation", 60)
    assert fitted.temperature == pytest.approx(
        calibration.fit_temperature(validation.scores, validation.labels), rel=1e-3
    )
    expected = calibration.ece(test.calibrated(fitted.temperature).probabilities, test.labels).value
    assert record.scores["test"]["ece_calibrated"].value == pytest.approx(expected, abs=1e-6)
    assert not {*CALIBRATED} & {*record.scores["validation"]}
    assert sorted(record.scores["train"]) == sorted(UNCALIBRATED)


def test_a_split_evaluated_later_gives_the_same(task_of: Callable[..., Task], small: Data) -> None:
    task = task_of()
    record = stages.carry_out(task)
    kept = json.loads(json.dumps(record.as_json()))
    predict_stage.predict_split(
        RunFolder(task.folder), open_model(RunFolder(task.folder), trust=True), small, "test", record
    )
    assert record.reads_of_test == kept["reads_of_test"] + 1
    again = {
        "reads_of_test": record.reads_of_test,
        "scoring": record.as_json()["scoring"],
    }  # which took its own time
    assert json.loads(json.dumps(record.as_json())) == {**kept, **again}


def test_without_validation_nothing_is_calibrated(task_of: Callable[..., Task], small: Data) -> None:
    record = stages.carry_out(task_of(data=replace(small, validation=None)))
    assert "calibration" not in record.as_json()
    assert sorted(record.scores["test"]) == sorted(UNCALIBRATED)
    assert record.reliability["test"].calibrated is None


def test_an_image_that_is_there_several_times_counts_once() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), torch.rand(40, 1, 3, 3), torch.arange(40) % 3
    once = sl.evaluate(model, x, y)
    with pytest.warns(Notice, match="80 of 120 images repeat others"):
        often = sl.evaluate(model, x.repeat(3, 1, 1, 1), y.repeat(3))
    assert once["accuracy"] == often["accuracy"]
    assert often["accuracy"].n == 40
    other = sl.evaluate(model, torch.cat([x, x]), torch.cat([y, (y + 1) % 3]))  # the label differs
    assert other["accuracy"].n == 80


def test_images_without_an_answer_are_wrong_and_counted() -> None:
    """Twelve of 200: NaN for the label's own class 0, too, which the argmax of NaN would name."""
    whole = predictions()
    spoiled = whole.scores.copy()
    spoiled[:10], spoiled[10, 2], spoiled[11, 3] = np.nan, np.inf, np.nan
    some = replace(whole, scores=spoiled, labels=np.where(np.arange(200) < 10, 0, whole.labels))
    found = scores.summary(some, images(), np.zeros(3, np.int64), temperature=2.0)
    rest = scores.summary(
        replace(whole, scores=whole.scores[12:], labels=whole.labels[12:]), images(188), np.zeros(3, np.int64)
    )
    assert found.scores["no_answer"].value == 12 / 200
    assert "no_answer" not in rest.scores
    right = round(188 * rest.scores["accuracy"].value)
    assert (found.scores["accuracy"].value, found.scores["accuracy"].n) == (right / 200, 200)
    assert found.scores["top5"].value == pytest.approx(188 * rest.scores["top5"].value / 200)
    for name in ("cross_entropy", "brier", "ece", "auroc", "auprc"):
        assert found.scores[name] == rest.scores[name]
    assert found.scores["aurc"].n == 200
    assert found.scores["aurc"].value > rest.scores["aurc"].value
    confusion = np.array(found.confusion)
    assert confusion.shape == (6, 7)
    assert (confusion[:, -1].sum(), confusion[0, -1]) == (12, 10 + int((some.labels[10:12] == 0).sum()))
    assert found.per_class.support == confusion.sum(1).tolist()
    assert sum(row.n for row in found.slices[0].rows) == 200
    as_json(found)
    record = {"scores": {"test": found.scores}, "confusion": {"test": found.confusion}}
    RunRecord.model_validate(RunRecord(status="finished", classes=list("abcdef"), **record).as_json())


def test_a_model_without_any_answer_has_an_accuracy_of_zero() -> None:
    some = replace(predictions(), scores=np.full((200, 6), np.nan))
    found = scores.summary(some, images(), np.zeros(3, np.int64), temperature=2.0)
    assert found.scores["accuracy"].value == 0
    assert found.scores["no_answer"].value == 1
    assert found.scores["cross_entropy"].n == 0
    assert scores.calibration_of(some).temperature == 1
    as_json(found)


def test_watching_an_epoch_counts_no_answer() -> None:
    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(x), 2)
            logits[: len(x) // 2] = torch.nan
            return logits

    split = Split(torch.zeros(8, 1, 2, 2), torch.zeros(8, dtype=torch.int64), 1.0)
    figures = scores.watched(Half(), split, lambda logits, y: logits.mean())
    assert (figures["accuracy"], figures["no_answer"]) == (0.5, 0.5)
    assert np.isnan(figures["loss"])


@pytest.mark.parametrize(("classes", "top5"), [(5, None), (8, 5 / 8)], ids=str)
def test_watching_an_epoch_counts_the_top_five_of_more_classes(classes: int, top5: float | None) -> None:
    """Class 0 ranks first for every image, then 1 and so on."""

    class Falling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -torch.arange(classes).float().expand(len(x), -1)

    split = Split(torch.zeros(classes, 1, 2, 2), torch.arange(classes), 1.0)
    figures = scores.watched(Falling(), split, lambda logits, y: logits.mean())
    assert figures["accuracy"] == 1 / classes
    assert figures.get("top5") == top5
