"""How a run is shown: its verdict, its scores with intervals, its curves and its surest mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from markupsafe import Markup

from stresslens.api.named_scores import score_cell
from stresslens.charts.chart import Chart, card_with_charts, side_by_side
from stresslens.core.answers import answer_in_words
from stresslens.core.cards import pictures, sentence, sentences
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.tables import ResultTable
from stresslens.core.text import counted
from stresslens.evaluation.averaged_views import averaged_in_words
from stresslens.report.curves import run_curves
from stresslens.report.gallery import example_images
from stresslens.report.load import Run, read_run, split_of
from stresslens.report.summary import run_opening, run_scores

PICTURES, SCORES = 8, 8
"""Mistakes and scores in a card."""


def run_card(folder: Path) -> str:
    run = read_run(RunFolder(folder))
    lead, *rest = run_opening(run, split_of([run])) or [f"{run.title}: {run.record.status}"]
    splits, scores = run_scores(run)
    cells = [(each.title, *(score_cell(each.is_percent, e) for e in each.estimates)) for each in scores]
    table = ResultTable(("score", *splits), cells)
    curves = run_curves(run)
    reason = [run.record.message] if run.record.message else []
    views = [averaged_in_words(run.record.averaged)] if run.record.averaged else []
    return card_with_charts(
        lead,
        sentences([*reason, *rest, *views]),
        table.html(SCORES),
        *(curves.charts if curves else []),
        _mistakes(run),
        f"{folder}; the whole story is in its report.html.",
    )


def run_chart(folder: Path, figure: Literal["loss", "accuracy"] | None) -> Chart:
    """Loss and accuracy over the epochs. Raises ConfigError where there are none, or no such figure."""
    run = read_run(RunFolder(folder))
    curves = run_curves(run)
    if curves is None:
        raise ConfigError(f"{folder} has no epochs to draw: nothing was trained, or nothing was logged")
    if figure is None:
        return side_by_side(curves.charts, run.title)
    chosen = [chart for chart in curves.charts if chart.title.lower() == figure]
    if not chosen:
        known = ", ".join(repr(chart.title.lower()) for chart in curves.charts)
        raise ConfigError(f"{folder} has no curve of {figure!r}; it has {known}")
    return chosen[0]


def _mistakes(run: Run) -> Markup | str:
    """The first wrongly classified images that the run keeps, with truth and answer."""
    mistakes = (each for each in run.examples if each.predicted != each.truth)
    cut = example_images(run.folder.examples, mistakes, PICTURES)
    if not cut:
        return ""
    found = [np.asarray(picture.convert("RGB")) for _, picture in cut]
    captions = [
        " → ".join(answer_in_words(k, run.classes) for k in (each.truth, each.predicted)) for each, _ in cut
    ]
    shown = f"{counted(len(found), 'mistake')} of the images that the run keeps, truth → answer:"
    return sentence(shown) + pictures(found, captions)
