"""`stresslens run`: carries out a study."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.completion import study_files, words
from stresslens.cli.options import (
    Device,
    DryRun,
    FailOver,
    FailUnder,
    Json,
    Out,
    Overrides,
    Quiet,
    Seed,
    Verbose,
)
from stresslens.cli.terminal import (
    print_accuracy,
    print_audits,
    print_data_notes,
    print_failures,
    print_finished,
    print_json,
    print_serious,
)
from stresslens.cli.training_progress import progress, silent
from stresslens.cli.verdicts import print_verdicts, told_short_names
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.text import counted

if TYPE_CHECKING:
    from stresslens.cli.gates import Gate
    from stresslens.comparison.schema import ComparisonFile
    from stresslens.config.study_file import Study
    from stresslens.core.types import Estimate
    from stresslens.evaluation.record import RunRecord, TrainingRecord
    from stresslens.study.pipeline import CarriedStudy
    from stresslens.training.task import Task

Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="How many runs at once, each in its own process. Default: one; on Ray one per core.",
    ),
]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="local, or ray for a cluster; default: the study's, else local.",
        autocompletion=words("local", "ray"),
    ),
]


def run(
    study: Annotated[
        Path, typer.Argument(help="A study file, or a run's config.yaml.", autocompletion=study_files)
    ],
    overrides: Overrides = None,
    out: Out = Path("runs"),
    jobs: Jobs = None,
    executor: ExecutorName = None,
    device: Device = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    fail_under: FailUnder = None,
    fail_over: FailOver = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a study and write its report.

    A study is every variant with every seed, their comparison, and the report. After a stop, even by
    kill -9, the same command resumes; what is finished is not done again.
    """
    start_workers(jobs, executor, dry_run)
    from stresslens.cli import gates
    from stresslens.cli.predictions_of_files import carry_out_recorded
    from stresslens.config import study_file
    from stresslens.config.recorded_study import read_recorded_study

    limits = gates.parsed(fail_under or [], fail_over or [])
    recorded = read_recorded_study(study)
    if recorded is not None:
        trains = {"--jobs": jobs, "--executor": executor, "--device": device, "--seed": seed}
        given = [name for name, value in trains.items() if value is not None] + list(overrides or [])
        if given:
            raise ConfigError(
                f"{given[0]}: {study} is a study of predictions, which trains nothing; leave it out"
            )
        carry_out_recorded(recorded, out, limits, dry_run=dry_run, as_json=as_json, quiet=quiet)
        return
    described = study_file.with_executor(study_file.read_study(study, overrides or []), executor)
    carry_out_study(described, out, jobs, device, seed, dry_run, limits, as_json, quiet, verbose)


def start_workers(jobs: int | None, executor: str | None, dry_run: bool) -> None:
    """Begins to start the processes of several jobs, before this one imports what a study needs."""
    if (jobs or 1) > 1 and executor != "ray" and not dry_run:
        from stresslens.study.worker_server import start_worker_server

        start_worker_server()


# long: the options of a command are spelled out, one after the other
def carry_out_study(
    study: Study,
    out: Path,
    jobs: int | None,
    device: str | None,
    seed: int | None,
    dry_run: bool,
    required: Sequence[Gate],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Carries out the study, prints its verdicts and checks its gates."""
    from stresslens.cli import gates
    from stresslens.config.ensembles import number_of_runs
    from stresslens.study import pipeline

    study = _with_device_and_seed(study, device, seed)
    if dry_run:
        _print_resolved(study)
        return
    short_named = _short_named(study)
    finished: dict[str, dict[str, Estimate]] = {}
    serious, told = dict[str, None](), set[str]()
    total = number_of_runs((each.config for each in study.variants), study.seeds)
    prints_progress = not (quiet or as_json)
    earlier = _trainings(study, out) if prints_progress else {}

    def on_finished(task: Task, record: RunRecord) -> None:
        if prints_progress:
            print_failures(short_named(task), record)
        if not record.usable:
            return
        scores = record.scores.get("test", {})
        checked = gates.scores_to_check(record, "test")
        # an unknown score stops the study before the other runs are trained
        gates.check_known(required, f"{task.run}/seed-{task.seed}", checked)
        finished[f"{task.run}/seed-{task.seed}"] = checked
        if prints_progress:
            print_data_notes(record.data, told)
        serious.update(dict.fromkeys(f.evidence for f in record.data.findings if f.severity == "serious"))
        if prints_progress:
            before, accuracy = earlier.get(task.folder.resolve()) == record.training, scores.get("accuracy")
            print_finished(len(finished), total, short_named(task), record, accuracy, before=before)

    started = time.perf_counter()
    carried = pipeline.carry_out_study(
        study,
        out=out,
        jobs=jobs,
        show=lambda task: progress(short_named(task), verbose) if prints_progress else silent,
        tell=on_finished,
        say=lambda line: typer.echo(line, err=True) if prints_progress else None,
    )
    untold = [each for each in serious if not any(each in line for line in told)]
    _print_results(study, carried, untold, None if quiet else started, as_json)
    if carried.failures:
        typer.echo("these parts are missing; the same command does only them:", err=True)
    carried.raise_failed()
    for note in gates.check(required, finished):
        typer.echo(note, err=True)


def _trainings(study: Study, out: Path) -> dict[Path, TrainingRecord]:
    """How the runs of the study's variants were trained that are there already, by their folders."""
    from stresslens.core.run_folder import run_folders
    from stresslens.evaluation.record import read_record

    names = {name for each in study.variants for name in (each.name, *study.kept_names.get(each.name, ()))}
    found = {}
    for run in (run for name in names for run in run_folders(out / study.name / name)):
        with suppress(StresslensError):  # the run itself says what is wrong with its folder
            found[run.path.resolve()] = read_record(run).training
    return found


def _print_results(
    study: Study, carried: CarriedStudy, serious: list[str], started: float | None, as_json: bool
) -> None:
    """Print the verdicts of a study and where its report is, or all of it as JSON. `started` is when it
    began; None leaves the report's place out."""
    from stresslens.comparison.schema import ComparisonFile

    folder = carried.folder
    compared = ComparisonFile.read(folder / "comparison.json")
    if as_json:
        paths = {"folder": str(folder), "report": str(folder / "report.html")}
        failed = {place: failure.message for place, failure in carried.failures.items()}
        shown = {"study": study.name, **paths, "comparison": compared.as_json()}
        print_json(shown | ({"failed": failed} if failed else {}))
        return
    _print_verdicts_of(study, folder, compared, started is None)
    print_serious(serious)
    print_audits(folder)
    if started is not None:
        typer.echo(f"report: {folder / 'report.html'} ({time.perf_counter() - started:.0f} s)")


def _short_named(study: Study) -> Callable[[Task], Task]:
    """A function that gives a task the short name of its variant, for the lines on its progress."""
    from stresslens.config.run_names import short_names

    short = short_names([each.name for each in study.variants], study.own_names, study.overrides)
    return lambda task: replace(task, run=short.get(task.run))


def _print_verdicts_of(study: Study, folder: Path, compared: ComparisonFile, quiet: bool) -> None:
    """Print the verdicts of a study's folder, with the short names of its variants. Where the folder
    holds other runs too, the accuracies of this study's come first, and sentences that name none of its
    variants are left out."""
    from stresslens.config.run_names import names_in

    short = told_short_names(folder, quiet=quiet)
    own = [variant.name for variant in study.variants if variant.name in compared.recipes]
    named = type(compared).model_validate(short.replaced(compared.as_json()))
    if len(own) < len(compared.recipes):
        for name in own:
            print_accuracy(short.get(name), compared.split, compared.recipes[name])
        of_own, every = {short.get(name) for name in own}, list(named.recipes)
        mine = [each for each in named.verdicts if of_own & names_in(each, every)]
        if others := len(named.verdicts) - len(mine):
            named = named.model_copy(update={"verdicts": mine})
            print(f"{counted(others, 'sentence')} on other runs of {folder}: in its report")
    print_verdicts(named)


def _with_device_and_seed(study: Study, device: str | None, seed: int | None) -> Study:
    """The study with the device and the only seed of the command line, if given."""
    if device is not None:
        variants = [
            replace(each, config=replace(each.config, train=replace(each.config.train, device=device)))
            for each in study.variants
        ]
        study = replace(study, variants=variants)
    if seed is not None:
        if study.repeats is not None and seed not in study.seeds:
            raise ConfigError(
                f"--seed {seed}: this study's repeats are {study.seeds[0]} to {study.seeds[-1]}, "
                "one for each division"
            )
        study = replace(study, seeds=[seed])
    return study


def _print_resolved(study: Study) -> None:
    """Print the resolved study as JSON (`--dry-run`)."""
    from dataclasses import asdict

    from stresslens.config import study_file

    resolved = {variant.name: study_file.as_values(variant.config) for variant in study.variants}
    swept = (
        {}
        if study.sweep is None
        else {"sweep": {**asdict(study.sweep), "trials": study.sweep.size * len(study.variants)}}
    )
    print_json(
        {
            "study": study.name,
            "seeds": study.seeds,
            "runs": resolved,
            "contrasts": study.contrasts,
            **({} if study.ablation is None else {"ablation": study.ablation.as_json()}),
            **swept,
        }
    )
