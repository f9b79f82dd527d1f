"""The command line: verbs, each one function; torch is imported only inside one, so that --help
answers at once."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.attack import attack, verify
from stresslens.cli.audit import audit
from stresslens.cli.data import app as data_app
from stresslens.cli.data import data_value
from stresslens.cli.doctor import doctor
from stresslens.cli.explain import explain
from stresslens.cli.export import export
from stresslens.cli.options import DataSet, Json
from stresslens.cli.terminal import (
    Advance,
    plugin_help,
    print_audits,
    print_comparison,
    print_finished,
    print_json,
    print_predictions,
    print_predictions_csv,
    print_runs,
    print_scores,
    print_serious,
    print_table,
    print_verdicts,
    progress,
    silent,
)
from stresslens.core.errors import ConfigError, GateNotMet, Stopped, StresslensError, closest
from stresslens.core.progress import listening
from stresslens.core.text import notices_are_sentences

if TYPE_CHECKING:
    from stresslens.config.study_file import Study
    from stresslens.core.types import Estimate
    from stresslens.study.record import Record
    from stresslens.training.task import Task

app = typer.Typer(
    name="stresslens",
    help="Trains image classifiers, attacks them, hardens them, looks inside them, and says which differences are real.\n\n"
    "Exit codes: 0 ok, 1 unexpected, 2 usage or configuration, 3 data, 4 training diverged, 5 a gate not met, "
    "130/143 stopped by a signal after saving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(data_app, name="data")
for verb in (attack, verify, audit, explain, export, doctor):
    app.command()(verb)

Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.path=value, for example train.epochs=1", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", help="Folder that holds the studies' folders.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, help="Runs trained at a time, each in its own process; on Ray by default one a core."
    ),
]
Where = Annotated[
    str | None,
    typer.Option("--executor", help="local, or ray for a cluster; default: the study's, else local."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, …; default: CUDA where there is one.")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="This one seed instead of the study's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only the verdict.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "-v", "--verbose", help="Where there is no progress bar, a line every second instead of every ten."
    ),
]
FailUnder = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-under",
        help="score=value, for example accuracy=0.97, or accuracy.low=0.97 for the lower end of its interval; exit code 5 if a run "
        "is below.",
        show_default=False,
    ),
]


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="A study file, or a run's config.yaml.")],
    overrides: Overrides = None,
    out: Out = Path("runs"),
    jobs: Jobs = None,
    executor: Where = None,
    device: Device = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    fail_under: FailUnder = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Carry out a study: every run and seed, their comparison, and a report. The same command again
    goes on where it stopped."""
    from stresslens.config import study_file

    described = study_file.with_executor(study_file.read_study(study, overrides or []), executor)
    _carry_out(described, out, jobs, device, seed, dry_run, fail_under or [], as_json, quiet, verbose)


@app.command()
def train(
    data: DataSet,
    model: Annotated[
        str, typer.Argument(help="A model or an estimator: simple_cnn, knn, …, or {mlp: {widths: [32, 16]}}.")
    ],
    overrides: Overrides = None,
    name: Annotated[
        str, typer.Option("--name", help="Of the run's folder, to which overrides are added.")
    ] = "run",
    out: Out = Path("runs"),
    track: Annotated[
        list[str] | None, typer.Option("--track", help="A tracker: tensorboard, {wandb: {project: x}}, …")
    ] = None,
    device: Device = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    fail_under: FailUnder = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train one model, or fit one estimator, on one data set: a study of a single run, without a file."""
    from stresslens.config import registry, study_file
    from stresslens.config.validation import applies_to_estimators
    from stresslens.config.yaml_source import parse_value
    from stresslens.core.errors import Problems

    what = parse_value(model)
    tracked = {"track": [parse_value(tracker) for tracker in track]} if track else {}
    kind = registry.model_or_estimator(what)
    idle = [
        text
        for text in overrides or []
        if kind == "estimator" and not applies_to_estimators(text.partition("=")[0])
    ]
    if idle:
        raise ConfigError(
            f"{idle[0]}: means nothing to the estimator {registry.name_and_options('estimators', what)[0]}; leave it out"
        )
    try:
        values = {"data": data_value(data), kind: what, "runs": {name: {}}, **tracked}
        described = study_file.expand_study(values, overrides or [], name="train", base=Path.cwd())
    except Problems as error:
        raise ConfigError(
            "\n".join(
                p.message if p.path[:1] != ("command line",) else f"{p.path[1]}: {p.message}"
                for p in error.problems
            )
        ) from None
    _carry_out(described, out, None, device, seed, dry_run, fail_under or [], as_json, quiet, verbose)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder (…/seed-0).")],
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    trust: Annotated[
        bool, typer.Option("--trust", help="Also execute plug-ins that are not built in.")
    ] = False,
    fail_under: FailUnder = None,
    as_json: Json = False,
) -> None:
    """Score a trained run on a split of its own data; reading test is counted in its record."""
    from stresslens.cli import gates
    from stresslens.core.files import write_json
    from stresslens.core.run_folder import RunFolder, read_record
    from stresslens.core.types import Estimate
    from stresslens.evaluation.finished_run import data_of
    from stresslens.evaluation.saved_model import open_model
    from stresslens.study import predict_stage

    folder = RunFolder(run)
    if split not in ("train", "validation", "test"):
        raise ConfigError(f"--split {split}: expected train, validation or test")
    asked = gates.parsed(fail_under or [])
    _check_is_run(run)
    read_record(folder)
    with folder.locked():
        record = read_record(folder)
        model = open_model(folder, trust=trust)
        data = data_of(folder, trust=trust)
        if data.fingerprint != record["data"]["fingerprint"]:
            raise ConfigError(
                f"{run}: the data set has changed since the run was trained, so its figures stay as they are"
            )
        if split not in data.splits:
            raise ConfigError(
                f"{data.name} has no {split} split in this run; it has {', '.join(data.splits)}"
            )
        predict_stage.predict_split(folder, model, data, split, record)
        write_json(folder.record, record)
    scores = {name: Estimate.from_json(values) for name, values in record["scores"][split].items()}
    if as_json:
        print_json({"run": str(run), "split": split, "scores": record["scores"][split]})
    else:
        print_scores(scores, f"{run}: {split}")
    gates.check(asked, {str(run): scores})


@app.command()
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Runs (…/seed-0), or recipes (runs/STUDY/RUN), the first being the baseline; or one study (runs/STUDY)."
        ),
    ],
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    metric: Annotated[
        str, typer.Option("--metric", help="accuracy, or robust@RADIUS (robust@8/255).")
    ] = "accuracy",
    plan: Annotated[
        bool, typer.Option("--plan", help="Say for every pair how many images and seeds it would take.")
    ] = False,
    difference: Annotated[
        float | None,
        typer.Option(
            "--difference",
            help="Percentage points that the plan is to tell apart; default: those seen, at least 0.5.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say whether runs or recipes differ from the first, or a study's recipes by its contrasts, and
    what it would take to tell.

    Runs: do these weight files differ? McNemar's exact test over the images. Recipes: over the
    seeds that both have. p is corrected by Holm. Exit code 5 when a run or recipe is really worse
    than the first (a study's own contrasts have no baseline, and pass).
    """
    from stresslens.comparison.folders import compare_folders

    if split not in ("test", "validation"):
        raise ConfigError(f"--split {split}: expected test or validation")
    if difference is not None and not 0 < difference <= 100:
        raise ConfigError(f"--difference {difference:g}: expected percentage points above 0, at most 100")
    compared = compare_folders(
        folders, split=split, ask=None if difference is None else difference / 100, metric=metric
    )
    if as_json:
        print_json(compared)
    else:
        print_comparison(compared, plans=plan or difference is not None)
    if compared["regressions"]:
        raise GateNotMet("\n".join(compared["regressions"]))


@app.command()
def predict(
    run: Annotated[
        Path, typer.Argument(help="A run's folder (…/seed-0), or what `stresslens export` wrote of one.")
    ],
    pictures: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.")],
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Also execute plug-ins that are not built in, and what a .pt2 file holds."
        ),
    ] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Classes shown for each picture.")] = 3,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompts",
            help="A caption to choose from, instead of the run's classes; repeat it.",
            show_default=False,
        ),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(
            "--templates",
            help="Captions go where {} is; may be repeated. Default: as they are.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values, written as they come.")] = False,
    as_json: Json = False,
) -> None:
    """Classify pictures, prepared as the run's own images were; say which are unlike its training images.

    Probabilities are calibrated on the run's validation images. A picture is called unlike at a
    stated false-alarm rate. Files that cannot be read are told at the end (exit code 3), the rest
    is done. With captions of your own, for a run with a text side (openclip), probabilities are not
    calibrated.
    """
    from stresslens.core.errors import DataError
    from stresslens.evaluation.classify_files import Classifier, picture_files
    from stresslens.evaluation.predictor import open_predictor

    if csv and as_json:
        raise ConfigError("give either --csv or --json")
    if templates and not prompts:
        raise ConfigError("--templates are for captions of your own; give them with --prompts")
    classifier = Classifier(
        open_predictor(run, trust=trust, captions=prompts, templates=templates or ("{}",))
    )
    told = classifier.facts
    found = classifier.classify(picture_files(pictures), top=top)
    rate = classifier.ood.rate if classifier.ood else None
    if csv:
        unreadable = print_predictions_csv(found, top)
    else:
        rows = list(found)
        unreadable = [f"{row.file}: {row.unreadable}" for row in rows if row.unreadable is not None]
        if as_json:
            facts = {
                "temperature": told.temperature,
                "calibrated_on": told.calibrated_on,
                "false_alarm_rate": rate,
            }
            readable = [row.as_json() for row in rows if row.unreadable is None]
            print_json({"run": str(run), **facts, "pictures": readable, "unreadable": unreadable})
        else:
            unfitted = "the captions are your own" if prompts else "the run has no validation images"
            print_predictions(
                [row for row in rows if row.unreadable is None], rate, told.calibrated_on, unfitted
            )
    if unreadable:
        raise DataError("\n".join(unreadable))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A study's folder (runs/NAME), or a run's (…/seed-0).")],
) -> None:
    """Write report.html anew, for a study and each of its runs or for one run, from their files,
    without a model."""
    from stresslens.report.page import write_report

    typer.echo(str(write_report(folder)))


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="datasets, models, losses, …, or runs.")] = "",
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the plug-ins of a kind with their options, or the runs."""
    from stresslens.config import registry

    if kind == "runs":
        print_runs(out, as_json)
        return
    kinds = [kind] if kind else list(registry.VOCABULARY)
    if kind and kind not in registry.VOCABULARY:
        raise ConfigError(f"no kind is called {kind!r}; {closest(kind, [*registry.VOCABULARY, 'runs'])}")
    found = {folder: {name: plugin_help(folder, name) for name in registry.names(folder)} for folder in kinds}
    if as_json:
        print_json(found)
        return
    for folder, plugins in found.items():
        print_table(
            [folder, "options", "what it is"],
            [[n, d["options"], d["help"]] for n, d in plugins.items()],
            folder,
        )


def main(command: Callable[[], object] = app) -> None:
    """Runs the command line; everything stresslens raises on purpose becomes one message and its
    exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    notices_are_sentences()
    try:
        with listening(Advance()):
            command()
    except (StresslensError, Stopped) as error:
        typer.echo(f"stresslens: {error}" if "\n" not in str(error) else str(error), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(141)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(f"stopped by {signal.Signals(number).name}; what was finished is saved", number)


def _carry_out(
    study: Study,
    out: Path,
    jobs: int | None,
    device: str | None,
    seed: int | None,
    dry_run: bool,
    fail_under: list[str],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    from dataclasses import asdict, replace

    from stresslens.cli import gates
    from stresslens.config import study_file
    from stresslens.study import pipeline

    asked = gates.parsed(fail_under)
    if device is not None:
        runs = [
            replace(run, config=replace(run.config, train=replace(run.config.train, device=device)))
            for run in study.runs
        ]
        study = replace(study, runs=runs)
    if seed is not None:
        if study.repeats is not None and seed not in study.seeds:
            raise ConfigError(
                f"--seed {seed}: this study's repeats are {study.seeds[0]} to {study.seeds[-1]}, one for each division"
            )
        study = replace(study, seeds=[seed])
    if dry_run:
        resolved = {run.name: study_file.as_values(run.config) for run in study.runs}
        swept = (
            {}
            if study.sweep is None
            else {"sweep": {**asdict(study.sweep), "trials": study.sweep.size * len(study.runs)}}
        )
        print_json(
            {
                "study": study.name,
                "seeds": study.seeds,
                "runs": resolved,
                "contrasts": study.contrasts,
                **swept,
            }
        )
        return
    finished: dict[str, dict[str, Estimate]] = {}
    serious: dict[str, None] = {}
    total = len(study.runs) * len(study.seeds)
    talks = not (quiet or as_json)

    def tell(task: Task, record: Record) -> None:
        from stresslens.core.types import Estimate

        scores = {name: Estimate.from_json(v) for name, v in record.get("scores", {}).get("test", {}).items()}
        gates.check_known(
            asked, f"{task.run}/seed-{task.seed}", scores
        )  # before the other runs are trained in vain
        finished[f"{task.run}/seed-{task.seed}"] = scores
        serious.update(
            dict.fromkeys(f["evidence"] for f in record["data"]["findings"] if f["severity"] == "serious")
        )
        if talks:
            print_finished(len(finished), total, task, record, scores.get("accuracy"))

    started = time.perf_counter()
    folder = pipeline.run(
        study,
        out=out,
        jobs=jobs,
        show=lambda task: progress(task, verbose) if talks else silent,
        tell=tell,
        say=lambda line: typer.echo(line, err=True) if talks else None,
    )
    verdicts = json.loads((folder / "comparison.json").read_text())
    if as_json:
        print_json(
            {
                "study": study.name,
                "folder": str(folder),
                "report": str(folder / "report.html"),
                "comparison": verdicts,
            }
        )
    else:
        print_verdicts(verdicts)
        print_serious(list(serious))
        print_audits(folder)
        if not quiet:
            typer.echo(f"report: {folder / 'report.html'} ({time.perf_counter() - started:.0f} s)")
    gates.check(asked, finished)


def _check_is_run(run: Path) -> None:
    if not (run / "record.json").is_file():
        raise ConfigError(
            f"{run} is not the folder of a run (…/seed-0); `stresslens list runs` shows those that there are"
        )
