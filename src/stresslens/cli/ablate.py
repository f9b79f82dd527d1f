"""`stresslens ablate`: what each ingredient of a recipe is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import study_files
from stresslens.cli.options import (
    Device,
    DryRun,
    FailOver,
    FailUnder,
    Json,
    Out,
    Overrides,
    Quiet,
    Verbose,
)
from stresslens.cli.run import ExecutorName, Jobs, carry_out_study, start_workers
from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    from stresslens.config.study_file import Study


# long: the options of a command are spelled out, one after the other
def ablate(
    study: Annotated[
        Path,
        typer.Argument(
            help="A study file: its `ablate:` names the ingredients; without it they are found.",
            autocompletion=study_files,
        ),
    ],
    overrides: Overrides = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Only leave each ingredient out of the full recipe.")
    ] = False,
    add_in: Annotated[
        bool, typer.Option("--add-in", help="Only add each ingredient to the bare recipe.")
    ] = False,
    ingredient: Annotated[
        list[str] | None,
        typer.Option(
            "--ingredient",
            help="Only this ingredient, by its name (default: all); may be repeated. The others are in every "
            "run. Also the key of a setting that is none by itself: train.batch_size.",
            show_default=False,
        ),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            help="The run whose recipe is meant, of a study file with `runs:`.",
            show_default=False,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option("--repeats", min=1, help="Seeds; default: the study's, else 3.", show_default=False),
    ] = None,
    out: Out = Path("runs"),
    jobs: Jobs = None,
    executor: ExecutorName = None,
    device: Device = None,
    dry_run: DryRun = False,
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure what each ingredient is worth.

    Each ingredient of a recipe (an augmentation, label smoothing, a schedule, …) is left out of the full
    recipe and added to the bare one, with the same seeds. A table and the report say what each gains, with
    its interval and a verdict, and what it costs. Without `ablate:` the ingredients are the settings of the
    file that differ from their defaults and can be taken away; which they are, and which are not, is
    printed first. A stopped ablation resumes by the same command.
    """
    start_workers(jobs, executor, dry_run)
    from stresslens.cli import gates
    from stresslens.config.ablation import request_of
    from stresslens.config.recorded_study import read_recorded_study
    from stresslens.config.study_file import read_study, with_executor

    limits = gates.parsed(fail_under or [], fail_over or [])
    if read_recorded_study(study) is not None:
        raise ConfigError(f"{study} is a study of predictions, which trains nothing; it has no ingredients")
    request = request_of(leave_out, add_in, ingredient or (), variant)
    seeds = [] if repeats is None else [f"repeats={repeats}"]
    described = with_executor(read_study(study, [*(overrides or []), *seeds], ablation=request), executor)
    if not (as_json or quiet):
        _print_ingredients(described)
    carry_out_study(described, out, jobs, device, None, dry_run, limits, as_json, quiet, verbose)


def _print_ingredients(study: Study) -> None:
    """Print the ingredients with their settings, and what is in all runs."""
    from stresslens.config.ablation import alternatives_in_words, ingredient_in_words, kept_in_words
    from stresslens.core.text import counted

    stated = study.ablation
    assert stated is not None
    for each in stated.ingredients:
        typer.echo(f"ingredient {each.name}: {ingredient_in_words(each)}", err=True)
    for told in filter(None, (alternatives_in_words(stated.ingredients), kept_in_words(stated.kept))):
        typer.echo(told, err=True)
    runs = counted(len(study.variants) * len(study.seeds), "run")
    typer.echo(f"{runs}: {counted(len(study.variants), 'variant')}, seeds {study.seeds}", err=True)
