"""How a study is shown: its verdicts, a table of its variants and their accuracies; and how a variant of
it is shown, with its seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from stresslens.api.named_scores import score_cell
from stresslens.charts.chart import Chart, card_with_charts, side_by_side
from stresslens.core.cards import sentences
from stresslens.core.errors import ConfigError
from stresslens.core.format import percent_sign
from stresslens.core.tables import Cell, ResultTable
from stresslens.core.text import counted
from stresslens.report import accuracy_charts, comparison, summary
from stresslens.report.load import StudyFolder, VariantRuns, load_study
from stresslens.report.study_robustness import threat_chart
from stresslens.report.threats import threats


def study_card(folder: Path) -> str:
    study = load_study(folder)
    lead, *rest = comparison.opening(study) or [study.name]
    verdicts = [verdict.sentence for each in comparison.questions(study) for verdict in each.verdicts]
    chart = accuracy_charts.accuracy_chart(study)
    return card_with_charts(
        lead,
        sentences([*rest, *verdicts]),
        _table_of(study).html(),
        *([chart] if chart else []),
        f"{folder}; the whole story is in its report.html.",
    )


def study_chart(folder: Path, figure: Literal["accuracy", "robustness"]) -> Chart:
    """The accuracy of each variant with its interval, or its robust accuracy over the radius. Raises
    ConfigError where no run has finished or none was attacked, and for another figure."""
    study = load_study(folder)
    if figure == "accuracy":
        return _chart_of(study, folder)
    if figure != "robustness":
        raise ConfigError(f"figure is {figure!r}; expected 'accuracy' or 'robustness'")
    charts = [threat_chart(threat) for threat in threats(study) if threat.radii]
    if not charts:
        raise ConfigError(f"{folder} has no attacked run to draw; sl.attack(run, radii=…) attacks one")
    return charts[0] if len(charts) == 1 else side_by_side(charts, f"{study.name}: robust accuracy")


def variant_card(folder: Path) -> str:
    """The card of the variant in a folder: its accuracy over the seeds, and that of each seed. Raises
    ConfigError where no seed has finished."""
    study, variant = _variant_in(folder)
    accuracy, seeds = variant.score(study.split, "accuracy"), _as_variants(study, variant)
    lead = f"{variant.name}: {counted(len(variant.finished), 'finished seed')}"
    if accuracy is not None:
        lead += f", {study.split} accuracy {percent_sign(accuracy)} of {counted(accuracy.n, 'image')}"
    of_seeds = _table_of(seeds)
    table = ResultTable(("seed", *of_seeds.columns[1:-1]), [row[:-1] for row in of_seeds.cells])
    return card_with_charts(
        lead,
        table.html(),
        _chart_of(seeds, folder),
        f"{folder}; the whole story is in the report.html of its study.",
    )


def variant_chart(folder: Path) -> Chart:
    """The accuracy of each seed with its interval. Raises ConfigError where no seed has finished."""
    return _chart_of(_as_variants(*_variant_in(folder)), folder)


def _variant_in(folder: Path) -> tuple[StudyFolder, VariantRuns]:
    study = load_study(folder.parent)
    there = [each for each in study.variants if each.runs and each.folder.name == folder.name]
    if not there:
        raise ConfigError(f"there is no run in {folder}")
    return study, there[0]


def _as_variants(study: StudyFolder, variant: VariantRuns) -> StudyFolder:
    """The study with the seeds of the variant in place of its variants."""
    seeds = [VariantRuns(f"seed {run.seed}", (run,), k) for k, run in enumerate(variant.runs) if run.finished]
    return replace(study, variants=tuple(seeds), comparison=None)


def _chart_of(study: StudyFolder, folder: Path) -> Chart:
    chart = accuracy_charts.accuracy_chart(study)
    if chart is None:
        raise ConfigError(f"{folder} has no finished run to draw")
    return chart


def study_table(folder: Path) -> ResultTable:
    """A row for each variant with a finished run, a column for each headline score."""
    return _table_of(load_study(folder))


def _table_of(study: StudyFolder) -> ResultTable:
    first = summary.headline_names(study)
    scores = [score for score in summary.scores(study) if score.name in first]
    cells: list[tuple[Cell, ...]] = []
    for place, variant in enumerate(summary.headline(study)):
        values = [score_cell(score.is_percent, score.estimates[place]) for score in scores]
        cells.append((variant.name, *values, len(variant.finished)))
    return ResultTable(("variant", *(score.title for score in scores), "seeds"), cells)
