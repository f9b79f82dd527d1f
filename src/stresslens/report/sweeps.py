"""Hyperparameter sweeps: the trials of each run, which settings matter, and how well each value
did, from sweep.json alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from stresslens.charts.axes import log_axis
from stresslens.charts.chart import Chart
from stresslens.charts.dot_charts import Interval, Mark, interval_chart, scatter_chart
from stresslens.comparison.schema import ImportanceTable
from stresslens.comparison.sweep_file import SweepFile, Trial
from stresslens.config.selection_rules import RULES, SelectionRule
from stresslens.core.format import brief, number, percent, percent_sign, plain
from stresslens.report.load import StudyFolder

PLAIN, BEST = 0, 1
"""Colours of a chart, as series numbers."""
ROWS = 200
"""Trials in a table; if there are more, the best are shown."""


@dataclass(frozen=True)
class SweepSection:
    """What the page shows of one sweep."""

    name: str
    file: SweepFile
    keys: Sequence[str]
    trials: Sequence[Trial]
    left_out: int
    slices: Sequence[Chart]
    importance: Chart | None

    @property
    def said(self) -> Sequence[str]:
        return self.file.importance.said if self.file.importance else ()

    @property
    def drawn(self) -> Sequence[str]:
        """The search space of each setting, and the constraints."""
        searched = self.file.searched
        drawn = (f"{key}: {_values(given)}" for key, given in (searched.space or {}).items())
        return [*drawn, *searched.where]

    def written(self, trial: Trial, key: str) -> str:
        return text(trial.settings[key]) if key in trial.settings else "as in the study file"

    @property
    def rule(self) -> SelectionRule:
        """The rule that ranks the trials."""
        return RULES[self.file.metric]

    def value(self, trial: Trial) -> str:
        return (percent if self.rule.is_share else plain)(trial.value)


def sweep_sections(study: StudyFolder) -> list[SweepSection]:
    return [_section(name, file) for name, file in study.sweeps.items()]


def chosen_settings(study: StudyFolder) -> list[str]:
    """A sentence for each sweep: the settings that it chose, and their score on validation."""
    sentences = []
    for name, file in study.sweeps.items():
        trial = next((trial for trial in file.trials if trial.number == file.best), None)
        if trial is None:
            continue
        settings = ", ".join(f"{key} = {text(value)}" for key, value in trial.settings.items())
        rule = RULES[file.metric]
        found = f"; {file.metric} {(percent_sign if rule.is_share else plain)(trial.value)} on validation"
        sentences.append(
            f"{name}: the sweep chose {settings}: trial {trial.number} of {len(file.trials)}{file.tie}"
            f"{found if trial.value else ''}"
        )
    return sentences


def _values(given: Any) -> str:
    """The choices or the range of a setting, as `space:` of a study file gives them."""
    if isinstance(given, dict) and "choices" not in given:
        how = (
            f" in steps of {text(given['step'])}"
            if given.get("step")
            else ", evenly in its logarithm"
            if given.get("log")
            else ""
        )
        return f"{text(given.get('from'))} to {text(given.get('to'))}{how}"
    choices = given["choices"] if isinstance(given, dict) else given
    return ", ".join(map(text, choices)) if isinstance(choices, list) else text(choices)


def _section(name: str, file: SweepFile) -> SweepSection:
    keys = list(dict.fromkeys(key for trial in file.trials for key in trial.settings))
    ranked = sorted(file.trials, key=lambda trial: _rank(trial, RULES[file.metric]))
    slices = [chart for key in keys if (chart := _slice(key, file)) is not None]
    return SweepSection(
        name, file, keys, ranked[:ROWS], len(ranked[ROWS:]), slices, _importance(file.importance)
    )


def _rank(trial: Trial, rule: SelectionRule) -> tuple[float, ...]:
    """Finished trials by value, then trials that were stopped early by the epochs they reached,
    then the others."""
    if trial.value is None:
        return (1.0, 0.0, trial.number)
    reached = math.inf if trial.status == "finished" else trial.epochs or 0
    return (-reached, -rule.sign * trial.value.value, trial.number)


def text(value: Any) -> str:
    """A setting's value as a study file writes it, in short."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else brief(json.dumps(value, ensure_ascii=False))


@dataclass(frozen=True)
class StudyImportance:
    """Which settings matter between the variants of a study."""

    n: int
    said: Sequence[str]
    chart: Chart | None


def study_importance(study: StudyFolder) -> StudyImportance | None:
    table = study.comparison.importance if study.comparison else None
    return StudyImportance(table.n, table.said, _importance(table)) if table else None


def _importance(table: ImportanceTable | None) -> Chart | None:
    rows = table.rows if table else []
    drawn = [
        Interval(row.setting, s.value, s.low, s.high, PLAIN, f"{s.value:.2f}")
        for row in rows
        if (s := row.share)
    ]
    if not drawn:
        return None
    return interval_chart(
        drawn, title="How much each setting explains", x_label="share of the differences", label=32
    )


def _slice(key: str, file: SweepFile) -> Chart | None:
    """Every trial against one setting: a dot each if the setting is a number, else the median and
    the extremes of each choice."""
    ended = [trial for trial in file.trials if trial.value is not None and trial.status != "running"]
    rule = RULES[file.metric]
    scale = 100.0 if rule.is_share else 1.0
    values = [trial.settings.get(key) for trial in ended]
    if len({text(value) for value in values}) < 2:
        return None
    numbers = [
        float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if len(numbers) < len(values) or _is_list(key, file):
        return _of_choices(key, ended, scale, rule.unit)
    marks = [_mark(trial, x, scale, file) for trial, x in zip(ended, numbers)]
    marks.sort(key=lambda mark: mark.place)  # draw the best last, over those of the same x
    log = min(numbers) > 0 and max(numbers) / min(numbers) > 20
    return scatter_chart(
        marks,
        title=f"Validation against {key}",
        x_label=f"{key}, logarithmic" if log else key,
        y_label=rule.unit,
        log=log and log_axis(numbers).holds(min(numbers)),
    )


def _is_list(key: str, file: SweepFile) -> bool:
    """Whether the search space of a setting is a list of choices, not a range."""
    given = (file.searched.space or {}).get(key)
    return isinstance(given, list) or (isinstance(given, dict) and "choices" in given)


def _mark(trial: Trial, x: float, scale: float, file: SweepFile) -> Mark:
    assert trial.value is not None
    e, best = trial.value, trial.number == file.best
    written = f"{number(scale * e.value)} at {x:g}"
    name = f"best: trial {trial.number}" if best else f"trial {trial.number}"
    return Mark(name, x, scale * e.value, scale * e.low, scale * e.high, BEST if best else PLAIN, written)


def _of_choices(key: str, ended: Sequence[Trial], scale: float, unit: str) -> Chart:
    by_choice: dict[str, list[float]] = {}
    for trial in ended:
        if trial.value is not None:
            written = text(trial.settings[key]) if key in trial.settings else "as in the study file"
            by_choice.setdefault(written, []).append(scale * trial.value.value)
    rows = [
        Interval(
            f"{choice} ({len(values)})",
            median(values),
            min(values),
            max(values),
            PLAIN,
            number(median(values)),
        )
        for choice, values in sorted(by_choice.items(), key=lambda pair: -median(pair[1]))
    ]
    title = f"Validation against {key}: median, lowest and highest (trials)"
    return interval_chart(rows, title=title, x_label=unit, label=32)
