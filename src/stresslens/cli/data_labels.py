"""`stresslens data labels`: finds labels that are probably wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import plugins_of
from stresslens.cli.data import data_value, load_data_set
from stresslens.cli.options import DataNow, Json, Overrides, Trust
from stresslens.cli.terminal import print_json, print_table
from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    from stresslens.evaluation.label_errors import LabelErrors


# long: the options of a command are spelled out, one after the other
def labels(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA|RUN",
            help="A dataset (digits, {mnist: {validation: 5000}}), the path of your images, a run "
            "(…/seed-0), or a variant or study of several (with repeats: {folds: K}, all its images).",
            autocompletion=plugins_of("datasets"),
        ),
    ],
    overrides: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="What is trained: a model or an estimator; default: simple_net.",
            autocompletion=plugins_of("models", "estimators"),
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", min=2, help="Parts of the data; default: 5.", show_default=False)
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Divisions into parts; default: 3.", show_default=False),
    ] = None,
    flips: Annotated[
        float | None,
        typer.Option(
            "--flips",
            help="Percentage of labels that are flipped to measure how many are found; default: 2; "
            "0 does not measure.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images", min=2, help="Look at so many random images; default: all.", show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=0, help="Images that are printed.")] = 20,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="Write an HTML page with the pictures.", show_default=False),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            "--corrections",
            help="Write a CSV file of the suggested labels. Delete the rows that you do not agree with; "
            "a dataset's option `corrections: FILE` then applies it.",
            show_default=False,
        ),
    ] = None,
    moved: DataNow = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Find labels that are probably wrong.

    Each image is judged by models that were not trained on it (confident learning). For data, they are
    trained now, on folds of all images; further arguments are settings of the training (train.epochs=20)
    and of the data (data.size=64). For finished runs, their predictions are read. How many wrong labels
    are found is measured with flips that are planted in the same data.
    """
    from stresslens.core.run_paths import runs_in

    if flips is not None and not 0 <= flips <= 25:
        raise ConfigError(f"--flips {flips:g}: expected a percentage from 0 to 25")
    if data.strip() and runs_in(Path(data)):
        given = {"--model": model, "--folds": folds, "--seeds": seeds, "--flips": flips, "--images": images}
        idle = [name for name, value in given.items() if value is not None] + list(overrides or [])
        if idle:
            raise ConfigError(
                f"{idle[0]}: {data} is trained already, and its predictions are read; "
                "leave it out, or give the data set instead of the run"
            )
        from stresslens.study.label_search import search_runs

        found = search_runs(Path(data), trust=trust, data=moved)
    elif moved is not None:
        raise ConfigError(f"--data {moved}: it says where the data of a run lie now, and {data} is no run")
    else:
        found = _searched(data, overrides or [], model, folds, seeds, flips, images)
    if as_json:
        print_json(found.as_json())
    else:
        _print(found, top)
    if corrections is not None:
        typer.echo(f"corrections: {found.write_corrections(corrections)}", err=as_json)
    if page is not None:
        from stresslens.report.suspect_labels import write_label_errors

        typer.echo(f"page: {write_label_errors(page, found)}", err=as_json)


def _searched(
    data: str,
    overrides: list[str],
    model: str | None,
    folds: int | None,
    seeds: int | None,
    flips: float | None,
    images: int | None,
) -> LabelErrors:
    """What is found in a data set by models that are trained now."""
    from stresslens.config.yaml_source import parse_value
    from stresslens.study import label_search

    value = label_search.MODEL if model is None else parse_value(model)
    trained = label_search.fold_model(data_value(data), value, overrides)
    return label_search.search_labels(
        load_data_set(trained.config.data),
        trained,
        folds=folds or label_search.FOLDS,
        seeds=seeds or label_search.SEEDS,
        flips=label_search.FLIPS if flips is None else flips / 100,
        images=images,
    )


def _print(found: LabelErrors, top: int) -> None:
    shown = found.errors[:top]
    if shown:
        rows = [
            [
                e.image,
                e.given,
                e.suggested,
                f"{100 * e.probability:.1f} %",
                f"{100 * e.given_probability:.1f} %",
                f"{e.agreeing} of {e.seeds}",
            ]
            for e in shown
        ]
        columns = ["image", "given", "suggested", "probability", "of the given", "seeds"]
        print_table(columns, rows, f"{found.name}: probably wrong labels")
    if more := len(found.errors) - len(shown):
        typer.echo(f"{more} more: --top, --page, --corrections and --json list them")
    typer.echo(f"{found.sentence}.")
    for sentence in found.sentences:
        typer.echo(sentence)
