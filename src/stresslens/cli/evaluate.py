"""`stresslens evaluate`: scores a run on one of its splits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.options import AverageOver, DataNow, FailUnder, Json, Out, RunOrFile, Trust
from stresslens.cli.predictions_of_files import (
    ClassesOption,
    ColumnsOption,
    LabelsOption,
    check_idle,
    recorded,
)
from stresslens.cli.terminal import print_json, print_scores
from stresslens.core.errors import ConfigError


# long: the options of a command are spelled out, one after the other
def evaluate(
    run: RunOrFile,
    split: Annotated[
        str,
        typer.Option(
            "--split", autocompletion=words("train", "validation", "test"), help="train, validation or test."
        ),
    ] = "test",
    data: DataNow = None,
    trust: Trust = False,
    tta: AverageOver = None,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    classes: ClassesOption = None,
    out: Out = Path("runs"),
    fail_under: FailUnder = None,
    as_json: Json = False,
) -> None:
    """Score a run, or a file of predictions.

    A file (CSV, TSV, JSON, JSON lines, parquet, npz) has a row for each image: its label, and its
    predicted class or the scores of all classes. It becomes the folder of a run below --out, with a page.

    Every score has its n and its interval. A read of the test split is counted in the run's record.
    The run's saved predictions are made anew; with the validation split also likeness.npz, which
    marks out-of-distribution images, where that file is missing or damaged. With --tta the scores are
    instead those of averaged probabilities; the record and the run's page keep them beside those of the
    image alone, with their paired difference.
    """
    from stresslens.cli import gates
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.averaged_views import averaged_in_words, score_averaged
    from stresslens.evaluation.finished_run import finished
    from stresslens.evaluation.prediction_rows import is_prediction_file
    from stresslens.evaluation.record import read_record
    from stresslens.metrics.leaked_copies import without_copies_in_words
    from stresslens.report.page import write_reports_of
    from stresslens.study.predict_stage import evaluate_again

    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split {split}: expected train, validation or test")
    asked = gates.parsed(fail_under or [])
    if is_prediction_file(run):
        if tta:
            raise ConfigError("--tta needs a model, and a file of predictions has none; leave it out")
        (folder,) = recorded([run], out, split=split, columns=columns, labels=labels, classes=classes)
        record = read_record(folder)
        scores, document = record.scores[split], record.as_json()
        typer.echo(f"page: {folder.path / 'report.html'}", err=True)
    elif columns or labels or classes:
        check_idle(columns, labels, classes)
    elif tta:
        with finished(RunFolder(run), split, trust=trust, data=data) as (model, found, record):
            averaged = score_averaged(RunFolder(run), model, found, record, tta, [split])
        write_reports_of(run)
        scores, document = averaged.scores[split], averaged.as_json()
    else:
        record = evaluate_again(RunFolder(run), split, trust=trust, data=data)
        scores, document = record.scores[split], record.as_json()
    if as_json:
        extra = {"tta": document["views"], "gain": document["gain"][split]} if tta else {}
        print_json({"run": str(run), "split": split, "scores": document["scores"][split], **extra})
    else:
        print_scores(scores, f"{run}: {split}")
        if copies := without_copies_in_words(scores, split):
            print(copies)
        if tta:
            print(averaged_in_words(averaged))
    gates.check(asked, {str(run): scores})
