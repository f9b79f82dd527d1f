"""`stresslens explain`: attribution maps and views, on images of a run's data or on your own files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from stresslens.cli.completion import plugins_of, runs
from stresslens.cli.options import DataNow, HeldOutSplit, Json, RunArgument, Trust
from stresslens.cli.run_arguments import check_pictures
from stresslens.core.run_paths import runs_in

USUAL = ("occlusion", "integrated_gradients", "gradcam")


# long: the options of a command are spelled out, one after the other
def explain(
    run: RunArgument,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="Image files, instead of images of the run's data.", show_default=False),
    ] = None,
    explainers: Annotated[
        list[str] | None,
        typer.Option(
            "--explainer",
            autocompletion=plugins_of("explainers"),
            help=f"gradcam, {{occlusion: {{size: 7}}}}, …; may be repeated. Default: {', '.join(USUAL)}.",
            show_default=False,
        ),
    ] = None,
    views: Annotated[
        list[str] | None,
        typer.Option(
            "--view",
            autocompletion=plugins_of("views"),
            help="filters, activations, class_image, …; may be repeated. "
            "Without --explainer, only views are made.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=1,
            help="The number of images. Default: 10, and fewer for a large net, whose maps take long.",
            show_default=False,
        ),
    ] = None,
    choose: Annotated[
        str,
        typer.Option(
            "--choose",
            help="one_per_class, random, most_confident_correct, most_confident_wrong, "
            "least_confident, confused_pairs (one image for each), or a list of numbers or file "
            "names: [3, 17].",
        ),
    ] = "one_per_class",
    images_from: Annotated[
        Path | None,
        typer.Option(
            "--images-from",
            autocompletion=runs,
            help="Another run, whose predictions choose the images, so that two models get the same ones.",
            show_default=False,
        ),
    ] = None,
    target_class: Annotated[
        str,
        typer.Option(
            "--target-class", help="The class to explain: predicted, label, or a class by its name or number."
        ),
    ] = "predicted",
    split: HeldOutSplit = "test",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    check: Annotated[
        bool | None,
        typer.Option(
            "--check/--no-check",
            help="Also compute the quality checks of each map. Default: those that do not take long.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …")] = "auto",
    data: DataNow = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Compute attribution maps and views of a run.

    Maps show which pixels speak for the model's answer, with quality checks; views show what it has
    learned. They are written as PNG and SVG and shown in the report. What is already there is not
    computed again. The maps of one explainer share one colour scale. Of the default explainers, those
    that do not suit the model are left out.
    """
    from stresslens.cli.terminal import print_explanations, print_json
    from stresslens.config.schema import Views
    from stresslens.config.validation import read_settings
    from stresslens.config.yaml_source import parse_value
    from stresslens.core.attempts import Attempts
    from stresslens.core.run_folder import RunFolder
    from stresslens.explanation.maps import explain_config, explain_run
    from stresslens.explanation.views import view_run
    from stresslens.report.page import write_reports_of

    kept = [str(each) for each in pictures or [] if not runs_in(each)]
    check_pictures(pictures or [], shlex.join(["stresslens", "explain", str(run), *kept]))
    which: dict[str, Any] = {"choose": parse_value(choose), "split": split, "seed": seed}
    kinds = [parse_value(text) for text in explainers or ([] if views and not pictures else USUAL)]
    which |= {} if images is None else {"images": images}
    why: dict[str, Any] = {"explainers": kinds, "target_class": parse_value(target_class)}
    why["check"] = "auto" if check is None else check
    where: dict[str, Any] = {"base": Path.cwd(), "trust": trust, "device": device, "data": data}
    attempts = Attempts()
    more: dict[str, Any] = {"attempts": attempts, **where}
    other = None if images_from is None else RunFolder(images_from)
    maps = (
        explain_run(RunFolder(run), explain_config(why | which), pictures or (), images_from=other, **more)
        if kinds
        else []
    )
    seen = []
    if views:
        asked = read_settings(Views, which | {"kinds": [parse_value(text) for text in views]}, "a view")
        seen = view_run(RunFolder(run), asked, **where)
    if as_json:
        print_json([each.as_json() for each in (*maps, *seen)])
    else:
        print_explanations(maps, seen, run)
    write_reports_of(run)
    if maps and not explainers:
        for reason in attempts.unsuitable():
            typer.echo(f"left out: {reason}", err=True)
    attempts.raise_failed()
