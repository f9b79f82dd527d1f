"""`stresslens evaluate`: scores a run on one of its splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.options import AverageOver, DataNow, FailOver, FailUnder, Json, Out, RunOrFile, Trust
from stresslens.cli.predictions_of_files import (
    ClassesOption,
    ColumnsOption,
    LabelsOption,
    check_idle,
    recorded,
)
from stresslens.cli.terminal import print_json, print_scores, print_table
from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    from stresslens.evaluation.slice_record import FoundSlices

LISTED = 4
"""Images of a slice that are named."""


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
    find_slices: Annotated[
        bool,
        typer.Option("--find-slices", help="Also find groups of similar images of low accuracy."),
    ] = False,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    classes: ClassesOption = None,
    out: Out = Path("runs"),
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    as_json: Json = False,
) -> None:
    """Score a run, or a file of predictions.

    A file (CSV, TSV, JSON, JSON lines, parquet, npz) has a row for each image: its label, and its
    predicted class or the scores of all classes. It becomes the folder of a run below --out, with a page.

    Every score has its n and its interval. A read of the test split is counted in the run's record.
    The run's saved predictions are made anew; with the validation split also likeness.npz, which
    marks out-of-distribution images, where that file is missing or damaged. With --tta the scores are
    instead those of averaged probabilities; the record and the run's page keep them beside those of the
    image alone, with their paired difference. With --find-slices half of the images are clustered by
    their features, and clusters of low accuracy are tested on the other half; the page shows them.
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
    if tta and find_slices:
        raise ConfigError("--find-slices is of the image alone, without --tta; give one of them")
    asked = gates.parsed(fail_under or [], fail_over or [])
    of_file = is_prediction_file(run)
    if not of_file:
        check_idle(columns, labels, classes)
    if of_file:
        if tta or find_slices:
            option = "--tta" if tta else "--find-slices"
            raise ConfigError(f"{option} needs a model, and a file of predictions has none; leave it out")
        (folder,) = recorded([run], out, split=split, columns=columns, labels=labels, classes=classes)
        record = read_record(folder)
        scores, document = record.scores[split], record.as_json()
        typer.echo(f"page: {folder.path / 'report.html'}", err=True)
    elif tta:
        with finished(RunFolder(run), split, trust=trust, data=data) as (model, found, record):
            averaged = score_averaged(RunFolder(run), model, found, record, tta, [split])
        scores, document = averaged.scores[split], averaged.as_json()
    else:
        record = evaluate_again(RunFolder(run), split, trust=trust, data=data, find_slices=find_slices)
        scores, document = record.scores[split], record.as_json()
    if tta or find_slices:
        write_reports_of(run)
    if as_json:
        extra = {"tta": document["views"], "gain": document["gain"][split]} if tta else {}
        if find_slices:
            extra["found_slices"] = document["found_slices"][split]
        print_json({"run": str(run), "split": split, "scores": document["scores"][split], **extra})
    else:
        print_scores(scores, f"{run}: {split}")
        if copies := without_copies_in_words(scores, split):
            print(copies)
        if tta:
            print(averaged_in_words(averaged))
        elif find_slices:
            _print_slices(record.found_slices[split], record.classes)
    checked = {str(run): scores if tta else gates.scores_to_check(record, split)}
    for note in gates.check(asked, checked):
        typer.echo(note, err=True)


def _print_slices(found: FoundSlices, classes: list[str]) -> None:
    """Print each slice with its accuracy, its classes and some of its images, and what was missed."""
    from stresslens.core.answers import answer_in_words
    from stresslens.core.format import p_value, percent, points

    rows = [
        [
            str(number),
            f"{each.accuracy.n:,}",
            percent(each.accuracy),
            percent(each.rest),
            points(each.gap),
            p_value(each.p_holm),
            ", ".join(f"{classes[k]} ×{n}" for k, n in each.classes),
            ", ".join(f"{classes[t]} as {answer_in_words(a, classes)} ×{n}" for t, a, n in each.mistakes),
        ]
        for number, each in enumerate(found.slices, 1)
    ]
    if rows:
        columns = ["slice", "images", "accuracy, %", "of the rest, %", "gap, points", "p, Holm"]
        print_table([*columns, "classes", "errors"], rows, "slices of low accuracy")
    for number, each in enumerate(found.slices, 1):
        print(f"slice {number}: {', '.join(member.image for member in each.members[:LISTED])}")
    print(f"{found.sentence}.")
    if found.missed:
        print(f"{found.missed}.")
