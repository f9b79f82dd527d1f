"""`stresslens explain`: why a run's model answers as it does, on images of its data or on one's own
pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stresslens.cli.options import Json, RunArgument, Trust

USUAL = ("occlusion", "integrated_gradients", "gradcam")


def explain(
    run: RunArgument,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="Picture files, instead of images of the run's data.", show_default=False),
    ] = None,
    explainers: Annotated[
        list[str] | None,
        typer.Option(
            "--explainer",
            help=f"gradcam, {{occlusion: {{size: 7}}}}, …; may be repeated. Default: {', '.join(USUAL)}.",
            show_default=False,
        ),
    ] = None,
    views: Annotated[
        list[str] | None,
        typer.Option(
            "--view",
            help="filters, activations, class_image, …; may be repeated. Alone, no explainer is called.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="How many.")] = 10,
    choose: Annotated[
        str,
        typer.Option(
            "--choose",
            help="one_per_class, random, surest_right, surest_wrong, least_sure, cells (one for each confused pair), or a list of "
            "numbers or file names: [3, 17].",
        ),
    ] = "one_per_class",
    by: Annotated[
        Path | None,
        typer.Option(
            "--by",
            help="Another run, whose predictions choose: then models are shown the same.",
            show_default=False,
        ),
    ] = None,
    answer: Annotated[
        str, typer.Option("--answer", help="The class that is explained: predicted, label, or a number.")
    ] = "predicted",
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Also say what each map is worth.")
    ] = True,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, …")] = "auto",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Maps over images of what speaks for the model's answer, checked, and views of what it has
    learned: PNG, SVG, and the report.

    Nothing that is there is made again. The maps of an explainer share one scale of colours.
    """
    from stresslens.cli.terminal import print_explanations, print_json
    from stresslens.config.schema import Views
    from stresslens.config.validation import read_settings
    from stresslens.config.yaml_source import parse_value
    from stresslens.core.run_folder import RunFolder
    from stresslens.explanation.maps import explain_config, explain_run
    from stresslens.explanation.views import view_run
    from stresslens.report.page import write_reports_of

    which = {"images": images, "choose": parse_value(choose), "split": split, "seed": seed}
    kinds = [parse_value(text) for text in explainers or ([] if views and not pictures else USUAL)]
    why: dict[str, Any] = {"explainers": kinds, "answer": parse_value(answer), "check": check}
    where: dict[str, Any] = {"base": Path.cwd(), "trust": trust, "device": device}
    other = None if by is None else RunFolder(by)
    maps = (
        explain_run(RunFolder(run), explain_config(why | which), pictures or (), by=other, **where)
        if kinds
        else []
    )
    seen = []
    if views:
        asked = read_settings(Views, which | {"kinds": [parse_value(text) for text in views]}, "a view")
        seen = view_run(RunFolder(run), asked, **where)
    write_reports_of(run)
    if as_json:
        print_json([each.as_json() for each in (*maps, *seen)])
    else:
        print_explanations(maps, seen, run)
