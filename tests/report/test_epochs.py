"""The figures of each epoch as tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from folders import write_run, write_study
from pages import page_of

from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import TrainingRecord
from stresslens.report.curves import learning_series
from stresslens.report.epochs import ROWS, run_epochs, study_epochs
from stresslens.report.load import load_study, read_run
from stresslens.report.summary import chosen_epoch


def test_the_table_of_a_run_has_what_was_logged(tmp_path: Path) -> None:
    run = write_run(tmp_path, "cnn", 0, epochs=5)
    table = run_epochs(read_run(RunFolder(run)))
    assert table is not None
    assert table.columns == ["Training loss", "Validation loss", "Validation accuracy, %", "Learning rate"]
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:5]]
    assert [row.epoch for row in table.rows] == [str(line["epoch"]) for line in logged]
    assert [row.figures[2] for row in table.rows] == [
        f"{100 * line['validation']['accuracy']:.1f}" for line in logged
    ]
    assert [row.chosen for row in table.rows] == [False, False, False, True, False]
    assert table.note == ""
    assert "Figures of each epoch" in page_of(run)[1].text


def test_the_longest_heading_is_not_cut(tmp_path: Path) -> None:
    run = write_run(tmp_path, "cnn", 0, epochs=2)
    log = run / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()[:2]]
    for line in lines:
        line["train"] = {"loss": 0.1, "accuracy": 0.9, "top5": 1.0}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert "<bdi>Training split, top-5 accuracy after the epoch, %</bdi>" in page_of(run)[0]


def test_a_long_training_shows_some_epochs_and_always_the_chosen(tmp_path: Path) -> None:
    run = write_run(tmp_path, "cnn", 0, epochs=500)
    table = run_epochs(read_run(RunFolder(run)))
    assert table is not None
    assert ROWS <= len(table.rows) <= ROWS + 1
    assert [row.epoch for row in table.rows if row.chosen] == ["499"]
    assert (table.rows[0].epoch, table.rows[-1].epoch) == ("1", "500")
    assert table.note == f"{len(table.rows)} of 500 epochs; all are in metrics.jsonl."


def test_the_table_of_a_study_has_a_column_for_each_variant(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, ["sgd", "adam"], seeds=2, epochs=4))
    tables = {table.title: table for table in study_epochs(learning_series(study))}
    assert list(tables) == ["Training loss", "Validation loss", "Validation accuracy, %"]
    accuracy = tables["Validation accuracy, %"]
    assert accuracy.columns == ["sgd", "adam"]
    lines = [dict(run.curve("validation", "accuracy")) for run in study.variants[0].runs]
    assert [row.figures[0] for row in accuracy.rows] == [
        f"{100 * (lines[0][epoch] + lines[1][epoch]) / 2:.1f}" for epoch in (1, 2, 3, 4)
    ]


def test_variants_beyond_the_columns_are_counted(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, [f"r{k:02d}" for k in range(15)], epochs=2))
    assert all(
        len(table.columns) == 12 and "3 more variants" in table.note
        for table in study_epochs(learning_series(study))
    )


def test_a_run_without_epochs_has_no_table(tmp_path: Path) -> None:
    run = write_run(tmp_path, "knn", 0, epochs=0)
    assert run_epochs(read_run(RunFolder(run))) is None
    assert "Figures of each epoch" not in page_of(run)[1].text


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"select": "last"}, "The last epoch, 53\u202f154, was kept; validation chose nothing. "),
        ({"select": "accuracy"}, "Epoch 53\u202f154 was chosen by the accuracy on validation. "),
        ({}, "Epoch 53\u202f154 was chosen. "),
    ],
    ids=["last", "accuracy", "older"],
)
def test_which_epoch_was_kept_is_said_in_words(training: dict[str, str], said: str) -> None:
    assert chosen_epoch(TrainingRecord(chosen_epoch=53154, **training)).replace("\u00a0", "\u202f") == said
    assert chosen_epoch(TrainingRecord()) == ""
