"""`stresslens compare`: tells which differences between runs are real."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.cli.across_data import check_page_of, data_sets_as_markdown, print_data_sets
from stresslens.cli.completion import runs_and_studies, words
from stresslens.cli.options import DataNow, HeldOutSplit, Json, Out, Trust
from stresslens.cli.predictions_of_files import (
    ClassesOption,
    ColumnsOption,
    LabelsOption,
    accuracies_alone,
    check_idle,
    recorded,
)
from stresslens.cli.terminal import print_json
from stresslens.cli.verdicts import print_comparison, told_short_names
from stresslens.core.errors import ConfigError, GateNotMet
from stresslens.metrics.measures import NAMES, measure_of

if TYPE_CHECKING:
    from stresslens.comparison.margins import MarginQuestion


# long: the options of a command are spelled out, one after the other
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(
            autocompletion=runs_and_studies,
            help="Runs (…/seed-0) or variants (runs/STUDY/VARIANT), the first is the baseline; "
            "one study (runs/STUDY); or files of predictions (a-seed0.csv a-seed1.csv b-seed0.csv …).",
        ),
    ],
    split: HeldOutSplit = "test",
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            autocompletion=words(*NAMES, "robust@RADIUS"),
            help="accuracy, balanced_accuracy, macro_f1, f1@CLASS, auroc (one class against the rest), "
            "auroc@CLASS, top5, brier, ece, cross_entropy (also brier_calibrated …: with the temperature of "
            "the validation split), cost (with --costs), or robust@RADIUS (robust@8/255).",
        ),
    ] = "accuracy",
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            help="What errors cost: YAML, {true class: {predicted class: cost}}, or CSV, a row for each true "
            "class. An error that is not named costs 1.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="For every pair, print how many images and seeds it would take.")
    ] = False,
    difference: Annotated[
        float | None,
        typer.Option(
            "--difference",
            help="The difference that the plan is for, in percentage points, or for a metric without a "
            "percent in its unit; default: the one seen, at least 0.5 points.",
        ),
    ] = None,
    same_within: Annotated[
        float | None,
        typer.Option(
            "--same-within",
            help="A margin as a share (0.005 is half a point): of every pair, say whether the two are the "
            "same within it.",
            show_default=False,
        ),
    ] = None,
    not_worse_than: Annotated[
        str | None,
        typer.Option(
            "--not-worse-than",
            help="A gate: the baseline, by its folder, file or name (first: the first given). Exit code 5 "
            "unless every other is shown not to be worse by more than --margin.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            help="The margin of --not-worse-than, as a share: 0.005 is half a point.",
            show_default=False,
        ),
    ] = None,
    across: Annotated[
        bool,
        typer.Option(
            "--across",
            help="Several studies with the same variants, each on another data set: the differences on each, "
            "on average, and on a new data set.",
        ),
    ] = False,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help="With --across: write an HTML page, for example across.html.",
            show_default=False,
        ),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            "--corrections",
            help="Score the predictions by corrected labels (a CSV file, as `data labels` writes it), and "
            "say which verdicts change.",
            show_default=False,
        ),
    ] = None,
    moved: DataNow = None,
    columns: ColumnsOption = None,
    labels: LabelsOption = None,
    classes: ClassesOption = None,
    out: Out = Path("runs"),
    without_copies: Annotated[
        bool,
        typer.Option(
            "--without-copies",
            help="Leave out the images that have a copy in an earlier split, and say which verdicts change.",
        ),
    ] = False,
    trust: Trust = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a pull request or a page.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare runs, variants or a study.

    Also files of predictions that other programs wrote: they become runs below --out. Of accuracies
    alone (columns variant, seed, accuracy and, if known, images) it says what can be said of them.

    Two runs: do these two weight files differ? McNemar's exact test over the images. Two variants: do
    they differ over the seeds that both have? A study: its own contrasts. Every metric has the same
    verdicts (docs/statistics.md); of unbalanced classes, balanced_accuracy stands beside the accuracy,
    and --metric balanced_accuracy tests it. p values are corrected by
    Holm. For two that are not distinguishable, it says how many images and seeds would be needed. Exit
    code 5 when a run or variant is really worse than the first; a study's own contrasts have no
    baseline, and pass.
    """
    from stresslens.comparison.cost_table import CostTable
    from stresslens.comparison.data_sets import compare_data_sets
    from stresslens.comparison.folders import (
        check_options,
        compare_corrected,
        compare_folders,
        compare_without_copies,
    )
    from stresslens.comparison.markdown import markdown_of
    from stresslens.evaluation.prediction_rows import is_prediction_file
    from stresslens.study.recorded_runs import folders_to_compare

    if split not in ("test", "validation"):
        raise ConfigError(f"--split {split}: expected test or validation")
    ask = _asked(difference, metric)
    table = None if costs is None else CostTable.read(costs)
    if corrections is None and moved is not None:
        raise ConfigError(f"--data {moved}: data are read for --corrections alone; leave it out")
    check_options(
        metric, costs=costs is not None, corrections=corrections is not None, without_copies=without_copies
    )
    if as_json and as_markdown:
        raise ConfigError("--json and --markdown are two forms; give one of them")
    question = _question(same_within, not_worse_than, margin)
    if across:
        idle = _given_idle(question, corrections, without_copies)
        others = {"--plan": plan, "--difference": difference is not None, "--costs": costs is not None}
        if idle := idle or next((name for name, is_given in others.items() if is_given), ""):
            raise ConfigError(f"{idle} is not for --across; leave one of the two out")
        check_idle(columns, labels, classes)
        check_page_of(page, out)
        told = compare_data_sets(folders, split=split, metric=metric)
        if as_json:
            print_json(told.as_json())
        elif as_markdown:
            typer.echo(data_sets_as_markdown(told), nl=False)
        else:
            print_data_sets(told)
        if page is not None:
            from stresslens.report.across_data_sets import write_across

            typer.echo(f"page: {write_across(page, told)}", err=as_json or as_markdown)
        return
    if page is not None:
        raise ConfigError(f"--page {page}: a page is written with --across; a study has its report.html")
    of_files = [is_prediction_file(folder) for folder in folders]
    reported = accuracies_alone(folders, columns) if all(of_files) else None
    asked: dict[str, object] = {
        "--plan": plan,
        "--difference": difference,
        "--without-copies": without_copies,
    }
    asked |= {"--corrections": corrections, f"--metric {metric}": metric != "accuracy"}
    asked |= {"--same-within": same_within, "--not-worse-than": not_worse_than}
    if reported is not None and (given := [name for name, value in asked.items() if value]):
        raise ConfigError(f"{given[0]} needs predictions, and the files have accuracies alone; leave it out")
    if reported is None and all(of_files):
        made = recorded(folders, out, split=split, columns=columns, labels=labels, classes=classes)
        folders = folders_to_compare(made)
    elif reported is None and any(of_files):
        raise ConfigError("compare files of predictions with files, or folders of runs with folders")
    elif missing := [folder for folder in folders if not folder.exists()]:
        raise ConfigError(f"there is no {missing[0]}; `stresslens list runs` shows the runs that there are")
    else:
        check_idle(columns if reported is None else None, labels, classes)
    if reported is not None:
        compared = reported
    elif without_copies:
        compared = compare_without_copies(folders, split=split, ask=ask, question=question)
    elif corrections is None:
        compared = compare_folders(
            folders, split=split, ask=ask, metric=metric, costs=table, question=question
        )
    else:
        compared = compare_corrected(
            folders, corrections, split=split, ask=ask, trust=trust, data=moved, question=question
        )
    if as_json:
        print_json(compared.as_json())
    elif as_markdown:
        if compared.kind == "study":
            compared = compared.renamed(told_short_names(folders[0], quiet=True))
        typer.echo(markdown_of(compared), nl=False)
    else:
        if compared.kind == "study":
            compared = compared.renamed(told_short_names(folders[0]))
        print_comparison(compared, plans=plan or difference is not None)
    missed = compared.regressions if question.gate is None else compared.gate_missed
    if missed:
        raise GateNotMet("\n".join(missed))


def _question(same_within: float | None, baseline: str | None, margin: float | None) -> MarginQuestion:
    """What is asked about margins. Raises ConfigError."""
    from stresslens.comparison.margins import MarginQuestion, NotWorseGate, margin_of
    from stresslens.study.recorded_runs import variant_named

    if baseline is not None and margin is None:
        raise ConfigError("--not-worse-than needs --margin, as a share: 0.005 is half a point")
    if margin is not None and baseline is None:
        raise ConfigError(
            "--margin belongs to --not-worse-than BASELINE; whether two are the same is --same-within"
        )
    same = None if same_within is None else margin_of(same_within, "--same-within")
    if baseline is None or margin is None:
        return MarginQuestion(same)
    return MarginQuestion(same, NotWorseGate(variant_named(baseline), margin_of(margin, "--margin")))


def _given_idle(question: MarginQuestion, corrections: Path | None, without_copies: bool) -> str:
    """The first of the options that is given; empty if none is."""
    given = {
        "--same-within": question.same_within is not None,
        "--not-worse-than": question.gate is not None,
        "--corrections": corrections is not None,
        "--without-copies": without_copies,
    }
    return next((name for name, is_given in given.items() if is_given), "")


def _asked(difference: float | None, metric: str) -> float | None:
    """The difference that a plan is for, in the unit of the metric."""
    measure = measure_of(metric)
    if difference is None:
        return None
    if measure.is_share and not 0 < difference <= 100:
        raise ConfigError(f"--difference {difference:g}: expected percentage points above 0, at most 100")
    if difference > measure.ends[1] - measure.ends[0] and not measure.is_share:
        raise ConfigError(f"--difference {difference:g}: two values of {metric} cannot differ by so much")
    if not 0 < difference < math.inf:
        raise ConfigError(f"--difference {difference:g}: expected a number above 0, in the unit of {metric}")
    return difference / 100 if measure.is_share else difference
