"""`stresslens predict`: classifies image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stresslens.cli.options import Json
from stresslens.cli.terminal import print_json, print_predictions, print_predictions_csv
from stresslens.core.errors import ConfigError


# long: the options of a command are spelled out, one after the other
def predict(
    run: Annotated[
        Path, typer.Argument(help="A run's folder (…/seed-0), or a file that `stresslens export` wrote.")
    ],
    pictures: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Also execute plug-ins that are not built in, and what a .pt2 file holds."
        ),
    ] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes shown for each image.")] = 3,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompts",
            help="A caption to choose from, instead of the run's classes; may be repeated.",
            show_default=False,
        ),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(
            "--templates",
            help="A template; {} is replaced by each caption; may be repeated. Default: the captions alone.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values, each line as soon as it is known.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Classify image files with a run.

    Images are prepared as the run's own images were. Probabilities are calibrated on the run's
    validation images, if these show a better temperature. Images unlike the training images (out
    of distribution, OOD) are marked, at a stated false-alarm rate. Files that cannot be read are
    listed at the end (exit code 3); the others are classified. Files of other types in a folder are
    counted. With your own captions, for a run
    with a text encoder (openclip), probabilities are not calibrated.
    """
    from stresslens.core.errors import DataError
    from stresslens.core.image_formats import left_out
    from stresslens.evaluation.classify_files import Classifier, picture_files
    from stresslens.evaluation.predictor import open_predictor

    if csv and as_json:
        raise ConfigError("give either --csv or --json")
    if templates and not prompts:
        raise ConfigError("--templates belong to your own captions; give these with --prompts")
    classifier = Classifier(
        open_predictor(run, trust=trust, captions=prompts, templates=templates or ("{}",))
    )
    info = classifier.facts
    others: list[str] = []
    predictions = classifier.classify(picture_files(pictures, others), top=top)
    said = "; ".join(filter(None, left_out(others) or ()))
    if said:
        typer.echo(said, err=True)
    rate = classifier.ood.rate if classifier.ood else None
    if csv:
        unreadable = print_predictions_csv(predictions, top)
    else:
        rows = list(predictions)
        unreadable = [f"{row.file}: {row.unreadable}" for row in rows if row.unreadable is not None]
        if as_json:
            facts = {
                "temperature": info.temperature,
                "calibrated_on": info.calibrated_on,
                "not_calibrated": info.not_calibrated,
                "false_alarm_rate": rate,
            }
            readable = [row.as_json() for row in rows if row.unreadable is None]
            print_json(
                {"run": str(run), **facts, "pictures": readable, "unreadable": unreadable, "left_out": others}
            )
        else:
            why_not = info.not_calibrated or "no temperature was fitted"
            print_predictions(
                [row for row in rows if row.unreadable is None], rate, info.calibrated_on, why_not
            )
    if unreadable:
        raise DataError("\n".join(unreadable))
