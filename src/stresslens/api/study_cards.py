"""How a study is shown: its verdicts, a table of its variants and their accuracies."""

from __future__ import annotations

from pathlib import Path

from stresslens.api.named_scores import score_cell
from stresslens.charts.chart import Chart, card_with_charts
from stresslens.core.cards import sentences
from stresslens.core.errors import ConfigError
from stresslens.core.tables import Cell, ResultTable
from stresslens.report import accuracy_charts, comparison, summary
from stresslens.report.load import StudyFolder, load_study


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


def study_chart(folder: Path) -> Chart:
    """The accuracy of each variant with its interval. Raises ConfigError where no run has finished."""
    chart = accuracy_charts.accuracy_chart(load_study(folder))
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
