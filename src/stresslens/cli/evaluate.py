"""`stresslens evaluate`: scores a run on one of its splits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import words
from stresslens.cli.guarantee_tables import print_guarantee_scores
from stresslens.cli.guaranteed import (
    ByClass,
    Calibrate,
    Coverage,
    Recall,
    Sets,
    WrongAtMost,
    check_alone,
)
from stresslens.cli.model_files import SetOption, run_of_model
from stresslens.cli.ood import Detectors, OODSets, check_ood, print_ood, scored_ood
from stresslens.cli.options import AverageOver, DataNow, FailOver, FailUnder, Json, Out, RunOrFile, Trust
from stresslens.cli.predictions_of_files import (
    ClassesOption,
    ColumnsOption,
    LabelsOption,
    calibrating,
    check_idle,
    recorded,
)
from stresslens.cli.terminal import print_json, print_scores, print_table
from stresslens.core.errors import ConfigError
from stresslens.core.model_suffixes import is_model_file

if TYPE_CHECKING:
    from stresslens.evaluation.slice_record import FoundSlices

SPLITS = ("train", "validation", "calibration", "test")
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
    coverage: Coverage = None,
    sets: Sets = None,
    by_class: ByClass = False,
    wrong_at_most: WrongAtMost = None,
    recall: Recall = None,
    calibrate: Calibrate = None,
    ood: OODSets = None,
    detector: Detectors = None,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    classes: ClassesOption = None,
    settings: SetOption = None,
    out: Out = Path("runs"),
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    as_json: Json = False,
) -> None:
    """Score a run, a model file or predictions.

    A file (CSV, TSV, JSON, JSON lines, parquet, npz) has a row for each image: its label, and its
    predicted class or the scores of all classes. It becomes the folder of a run below --out, with a page.
    So does a model file (.onnx; with --trust .pt2, .pt, .joblib) on the images of --data, a data set or a
    path; --set says what the model expects.

    Every score has its n and its interval. A read of the test split is counted in the run's record.
    The run's saved predictions are made anew; with the validation split also likeness.npz, which
    marks out-of-distribution images, where that file is missing or damaged. With --tta the scores are
    instead those of averaged probabilities; the record and the run's page keep them beside those of the
    image alone, with their paired difference. With --find-slices half of the images are clustered by
    their features, and clusters of low accuracy are tested on the other half; the page shows them.

    With --coverage, --wrong-at-most and --recall the sets, answers and thresholds of `stresslens predict`
    are scored; images that the run held out calibrate them, or for a file those of --calibrate.
    With --ood detectors of out-of-distribution images are compared on that set, beside the split.
    """
    from stresslens.cli import gates
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation import guarantees
    from stresslens.evaluation.averaged_views import averaged_in_words, score_averaged
    from stresslens.evaluation.finished_run import finished
    from stresslens.evaluation.guarantee_scores import score_on_split
    from stresslens.evaluation.prediction_rows import is_prediction_file
    from stresslens.evaluation.record import read_record
    from stresslens.metrics.leaked_copies import without_copies_in_words
    from stresslens.report.page import write_reports_of
    from stresslens.study.predict_stage import evaluate_again

    if split not in SPLITS:
        raise ConfigError(f"--split {split}: expected train, validation, calibration or test")
    wanted = guarantees.wanted(coverage, sets, by_class, wrong_at_most, recall)
    check_alone(wanted, tta=bool(tta))
    if tta and find_slices:
        raise ConfigError("--find-slices is of the image alone, without --tta; give one of them")
    check_ood(run, split, ood, detector, tta=tta, find_slices=find_slices)
    asked, guaranteed, images = gates.parsed(fail_under or [], fail_over or []), None, None
    of_file = is_prediction_file(run)
    of_model = not of_file and is_model_file(run)
    if not of_file:
        check_idle(columns, labels, classes, calibrate)
    elif wanted and calibrate is None:
        raise ConfigError(
            f"{wanted.options[0]} of a file needs --calibrate: a file of the same model's predictions "
            "for other images"
        )
    elif calibrate is not None and not wanted:
        raise ConfigError("--calibrate belongs to --coverage, --wrong-at-most and --recall; give one of them")
    if settings and not of_model:
        raise ConfigError("--set is for model files; leave it out")
    if of_model:
        if tta or find_slices:
            option = "--tta" if tta else "--find-slices"
            raise ConfigError(f"{option}: evaluate the model file first, and then its run with {option}")
        folder = run_of_model(run, data, out, settings or [], trust=trust)
        record = read_record(folder)
        if split not in record.scores:
            record = evaluate_again(folder, split, trust=True)
        if wanted:
            guarantees.check_calibrated(folder, split)
        typer.echo(f"run: {folder.path}", err=True)
    elif of_file:
        if tta or find_slices:
            option = "--tta" if tta else "--find-slices"
            raise ConfigError(f"{option} needs a model, and a file of predictions has none; leave it out")
        if data is not None or trust:
            option = "--trust" if data is None else "--data"
            raise ConfigError(f"{option} is for runs and model files; leave it out")
        if calibrate is not None:
            images = calibrating(calibrate, run, columns=columns, labels=labels, classes=classes)
        (folder,) = recorded([run], out, split=split, columns=columns, labels=labels, classes=classes)
        record = read_record(folder)
        typer.echo(f"page: {folder.path / 'report.html'}", err=True)
    elif tta:
        folder = RunFolder(run)
        with finished(folder, split, trust=trust, data=data) as (model, found, record):
            averaged = score_averaged(folder, model, found, record, tta, [split])
        scores, document = averaged.scores[split], averaged.as_json()
    else:
        folder = RunFolder(run)
        if wanted:
            guarantees.check_calibrated(folder, split)
        record = evaluate_again(folder, split, trust=trust, data=data, find_slices=find_slices)
    if not tta:
        scores, document = record.scores[split], record.as_json()
        guaranteed = score_on_split(wanted, folder, record, split, images) if wanted else None
    if ood:
        place = None if of_model else data
        found_ood = scored_ood(folder.path, split, ood, detector or [], data=place, trust=trust or of_model)
    if tta or find_slices or ood:
        write_reports_of(folder.path)
    if as_json:
        extra = {"tta": document["views"], "gain": document["gain"][split]} if tta else {}
        if find_slices:
            extra["found_slices"] = document["found_slices"][split]
        if guaranteed is not None:
            extra["guarantees"] = guaranteed.as_json(record.classes)
        if ood:
            extra["ood"] = found_ood.as_json()
        print_json({"run": str(run), "split": split, "scores": document["scores"][split], **extra})
    else:
        print_scores(scores, f"{run}: {split}")
        if copies := without_copies_in_words(scores, split):
            print(copies)
        if tta:
            print(averaged_in_words(averaged))
        elif find_slices:
            _print_slices(record.found_slices[split], record.classes)
        if guaranteed is not None:
            print_guarantee_scores(guaranteed, record.classes, split)
        if ood:
            print_ood(found_ood, ood)
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
