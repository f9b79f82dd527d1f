"""Predictions of other programs as arguments of `evaluate` and `compare`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.terminal import print_accuracy, print_json
from stresslens.cli.verdicts import print_verdicts
from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    from stresslens.cli.gates import Gate
    from stresslens.comparison.folders import FolderComparison
    from stresslens.config.recorded_study import RecordedStudy
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.guarantees import CalibrationImages
    from stresslens.evaluation.prediction_table import PredictionTable

ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Of a file of predictions: the columns with other names than the usual ones, as "
        "label=y,prediction=yhat,name=picture,scores=p_ (all columns that begin with p_).",
        show_default=False,
    ),
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="Of a file of predictions without labels: a file with a name and a label for each image.",
        show_default=False,
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="Of a file of predictions: the classes in the order of the scores.",
        show_default=False,
    ),
]


def recorded(
    files: Sequence[Path],
    out: Path,
    *,
    split: str,
    columns: str | None,
    labels: Path | None,
    classes: str | None,
) -> list[RunFolder]:
    """The folders of runs that are made from files of predictions, with what there is to say of each
    file on the terminal."""
    from stresslens.evaluation.paired_predictions import shared_images
    from stresslens.study.recorded_runs import record_runs

    tables = shared_images(_tables(files, columns, labels, classes))
    _tell(tables)
    return record_runs(tables, out, split=split)


def _tell(tables: Iterable[PredictionTable]) -> None:
    for table in tables:
        typer.echo(
            f"{table.source}: {len(table):,} images, {len(table.classes)} classes; {'; '.join(table.notes)}",
            err=True,
        )


def carry_out_recorded(
    study: RecordedStudy, out: Path, required: Sequence[Gate], *, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """Compares the predictions of a study file, prints the verdicts and checks the gates of each run."""
    from stresslens.cli import gates
    from stresslens.comparison.schema import ComparisonFile
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.record import read_record
    from stresslens.study.recorded_runs import record_study, tables_of

    if dry_run:
        files = {
            name: {f"seed-{seed}": str(file) for seed, file in seeds.items()}
            for name, seeds in study.files.items()
        }
        print_json({"study": study.name, "files": files, "contrasts": study.contrasts})
        return
    tables = tables_of(study)
    if not (quiet or as_json):
        _tell(tables.values())
    folder = record_study(study, tables, out)
    compared = ComparisonFile.read(folder / "comparison.json")
    if as_json:
        paths = {"folder": str(folder), "report": str(folder / "report.html")}
        print_json({"study": study.name, **paths, "comparison": compared.as_json()})
    else:
        for name, accuracy in compared.recipes.items():
            print_accuracy(name, compared.split, accuracy)
        print_verdicts(compared, plans=False)
        if not quiet:
            typer.echo(f"report: {folder / 'report.html'}")
    places = [f"{variant}/seed-{seed}" for variant, seed in tables]
    scores = {place: read_record(RunFolder(folder / place)).scores for place in places}
    for note in gates.check(required, {place: found[study.reading.split] for place, found in scores.items()}):
        typer.echo(note, err=True)


def accuracies_alone(files: Sequence[Path], columns: str | None) -> FolderComparison | None:
    """The comparison of files that hold accuracies alone; None for files of predictions."""
    from stresslens.comparison.reported_accuracy import compare_reported
    from stresslens.evaluation.accuracy_table import is_table_of_accuracies, read_accuracies

    given = _pairs(columns)
    if not all(is_table_of_accuracies(file, given) for file in files):
        return None
    return compare_reported(read_accuracies(files, given))


def calibrating(
    file: Path, other: Path, *, columns: str | None, labels: Path | None, classes: str | None
) -> CalibrationImages:
    """The images of a file, which calibrate what is scored on the images of the `other` file. Raises
    DataError where both have an image, or other classes."""
    import numpy as np

    from stresslens.core.errors import DataError
    from stresslens.core.text import enumeration
    from stresslens.evaluation.guarantees import images_of

    held_out, scored = _tables([file, other], columns, labels, classes)
    if held_out.classes != scored.classes:
        raise DataError(
            f"{file} has the classes {enumeration(held_out.classes)}, and {other} has "
            f"{enumeration(scored.classes)}; give all of them in the order of the scores with --classes"
        )
    if both := sorted(set(held_out.names) & set(scored.names)):
        raise DataError(
            f"{len(both)} images are in {file} and in {other}: {enumeration(both)}; images that calibrate "
            "must not be those that are scored"
        )
    same_rows = len(held_out) == len(scored) and np.array_equal(held_out.scores, scored.scores)
    if file.resolve() == other.resolve() or same_rows:
        raise DataError(f"{file} has the images of {other}; images that calibrate must be others")
    if not (held_out.names and scored.names):
        typer.echo(
            f"{file} or {other} does not name its images, so nobody can see whether some are in both",
            err=True,
        )
    return images_of(held_out.predictions, f"images of {file.name}", str(file))


def _tables(
    files: Sequence[Path], columns: str | None, labels: Path | None, classes: str | None
) -> list[PredictionTable]:
    from stresslens.evaluation.prediction_table import read_predictions
    from stresslens.evaluation.true_labels import read_labels

    given = _pairs(columns)
    truth = None if labels is None else read_labels(labels)
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    return [read_predictions(file, columns=given, labels=truth, classes=names) for file in files]


def check_idle(
    columns: str | None, labels: Path | None, classes: str | None, calibrate: Path | None = None
) -> None:
    """Raises ConfigError for an option of files of predictions where there is none."""
    given = {"--columns": columns, "--labels": labels, "--classes": classes, "--calibrate": calibrate}
    if idle := [name for name, value in given.items() if value is not None]:
        raise ConfigError(f"{idle[0]} is for files of predictions; leave it out")


def _pairs(text: str | None) -> dict[str, str]:
    pairs = {}
    for part in filter(None, (text or "").split(",")):
        role, equals, name = part.partition("=")
        if not equals or not name:
            raise ConfigError(f"--columns {text}: expected pairs such as label=y,prediction=yhat")
        pairs[role.strip()] = name.strip()
    return pairs
