"""`stresslens predict`: classifies image files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from stresslens.cli.completion import runs
from stresslens.cli.guaranteed import (
    ByClass,
    Coverage,
    Recall,
    Sets,
    WrongAtMost,
    check_alone,
    guaranteed_columns,
)
from stresslens.cli.options import AverageOver, Json
from stresslens.cli.run_arguments import runs_then_pictures
from stresslens.cli.terminal import CsvPredictions, meaning_of_predictions, print_json, print_predictions
from stresslens.core.errors import ConfigError


# long: the options of a command are spelled out, one after the other
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... IMAGES...",
            autocompletion=runs,
            help="A run's folder (…/seed-0) or several, or a file that `stresslens export` wrote; then "
            "image files, or folders of them.",
        ),
    ],
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
    tta: AverageOver = None,
    coverage: Coverage = None,
    sets: Sets = None,
    by_class: ByClass = False,
    wrong_at_most: WrongAtMost = None,
    recall: Recall = None,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print comma-separated values, each line as soon as it is known.")
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help="Write an HTML page with the images beside their predictions, and several runs side by "
            "side; with your own captions, it has all of them.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Classify image files with a run.

    With several runs, each classifies all images. Images are prepared as the run's own images were.
    Probabilities are calibrated on the run's validation images, if these show a better temperature.
    Images unlike the training images (out of distribution, OOD) are marked, at a stated false-alarm
    rate. Files that cannot be read are listed at the end (exit code 3); the others are classified.
    Files of other types in a folder are counted. With your own captions, for a run with a text encoder
    (openclip), and with --tta, probabilities are not calibrated.

    With --coverage, --wrong-at-most and --recall there is a set of classes, an answer or none, and the
    classes that are found, with a guarantee that images which the run held out calibrate.
    """
    from stresslens.core.errors import DataError
    from stresslens.core.image_formats import left_out
    from stresslens.evaluation import guarantees
    from stresslens.evaluation.classify_files import Classifier, Prediction, picture_files
    from stresslens.evaluation.predictor import open_predictor

    if csv and (as_json or page):
        raise ConfigError("--csv goes neither with --json nor with --page")
    if templates and not prompts:
        raise ConfigError("--templates belong to your own captions; give these with --prompts")
    wanted = guarantees.wanted(coverage, sets, by_class, wrong_at_most, recall)
    check_alone(wanted, prompts=bool(prompts), tta=bool(tta))
    runs, pictures = runs_then_pictures(paths)
    others: list[str] = []
    files = picture_files(pictures, others)
    if files_left := "; ".join(filter(None, left_out(others) or ())):
        typer.echo(files_left, err=True)
    table: CsvPredictions | None = None
    documents: list[dict[str, Any]] = []
    shown: list[tuple[str, list[Prediction], str]] = []
    ranked = max(top, len(prompts or [])) if page else top
    unreadable: dict[str, str] = {}
    for run in runs:
        classifier = Classifier(
            open_predictor(
                run, trust=trust, captions=prompts, templates=templates or ("{}",), views=tta or ()
            ),
            wanted,
        )
        info, rate = classifier.facts, classifier.ood.rate if classifier.ood else None
        if csv and table is None:
            table = CsvPredictions(top, with_run=len(runs) > 1, more=guaranteed_columns(wanted))
        read: list[Prediction] = []
        for row in classifier.classify(files, top=ranked):
            if row.unreadable is not None:
                unreadable[row.file] = row.unreadable
            elif table is not None:
                table.write(row, str(run))
            else:
                read.append(row)
        why_not = info.not_calibrated or "no temperature was fitted"
        said = classifier.guarantees.sentences if classifier.guarantees else []
        meaning = "\n".join([meaning_of_predictions(rate, info.calibrated_on, why_not), *said])
        shown.append((str(run), read, meaning))
        told = [replace(row, classes=row.classes[:top]) for row in read]
        if as_json:
            facts = {
                "temperature": info.temperature,
                "calibrated_on": info.calibrated_on,
                "not_calibrated": info.not_calibrated,
                "false_alarm_rate": rate,
            }
            averaged = {"tta": tta} if tta else {}
            pictures_told = [row.as_json() for row in told]
            guaranteed = {"guarantees": said} if wanted else {}
            documents.append({"run": str(run), **facts, **averaged, **guaranteed, "pictures": pictures_told})
        elif not csv:
            title = "predictions" if len(runs) == 1 else f"predictions of {run}"
            print_predictions(told, meaning, title, guaranteed_columns(wanted))
        else:
            typer.echo("\n".join(said), err=True, nl=bool(said))
    if page:
        from stresslens.report.predicted_images import write_predictions

        typer.echo(f"page: {write_predictions(page, shown)}", err=as_json)
    failed = [f"{file}: {why}" for file, why in unreadable.items()]
    if as_json:
        whole = documents[0] if len(runs) == 1 else {"runs": documents}
        print_json({**whole, "unreadable": failed, "left_out": others})
    if failed:
        raise DataError("\n".join(failed))
