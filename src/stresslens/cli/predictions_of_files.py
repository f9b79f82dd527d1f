"""Predictions of other programs as arguments of `evaluate` and `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    from stresslens.core.run_folder import RunFolder

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
    from stresslens.evaluation.prediction_table import read_labels, read_predictions
    from stresslens.study.recorded_runs import record_runs

    given = _pairs(columns)
    truth = None if labels is None else read_labels(labels)
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    tables = [read_predictions(file, columns=given, labels=truth, classes=names) for file in files]
    for table in tables:
        typer.echo(
            f"{table.source}: {len(table):,} images, {len(table.classes)} classes; {'; '.join(table.notes)}",
            err=True,
        )
    return record_runs(tables, out, split=split)


def check_idle(columns: str | None, labels: Path | None, classes: str | None) -> None:
    """Raises ConfigError for an option of files of predictions where there is none."""
    given = {"--columns": columns, "--labels": labels, "--classes": classes}
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
