"""Accuracy under corruptions, for the pages of a study and of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.charts.axes import PERCENT, linear_axis
from stresslens.charts.line_charts import Series, legend, line_chart
from stresslens.core.format import footnote
from stresslens.core.types import Estimate
from stresslens.metrics.random_effects import over_seeds
from stresslens.report.curves import Charts
from stresslens.report.heat_table import HeatTable, heat
from stresslens.report.load import Run, StudyFolder
from stresslens.robustness.corruption_file import CorruptionFile
from stresslens.robustness.robust_curves import series


@dataclass(frozen=True)
class CorruptionSection:
    """`means` are (variant, uncorrupted accuracy, mean over corruptions and severities); `charts`
    has one chart for each corruption."""

    charts: Charts
    means: Sequence[tuple[str, Estimate | None, Estimate | None]]
    grids: Sequence[HeatTable]
    n: Sequence[int]
    no_answer: int
    """Corrupted images for which a model has no answer, over all corruptions and severities."""


def corruption_section(study: StudyFolder) -> CorruptionSection | None:
    """Accuracy against severity of every variant, the mean over its seeds."""
    found = [
        (variant, [run.stress.corruptions for run in variant.finished if run.stress.corruptions])
        for variant in study.variants
    ]
    return _section([(variant.name, variant.place, seeds) for variant, seeds in found if seeds])


def run_corruption_section(run: Run) -> CorruptionSection | None:
    return _section([(run.name, 0, [run.stress.corruptions])]) if run.stress.corruptions else None


def _section(members: Sequence[tuple[str, int, Sequence[CorruptionFile]]]) -> CorruptionSection | None:
    if not members:
        return None
    names = list(
        dict.fromkeys(each.name for _, _, seeds in members for seed in seeds for each in seed.corruptions)
    )
    charts, tables = [], {name: _severities(members, name) for name in names}
    for name in names:
        drawn = []
        for (variant, place, seeds), (_, estimates) in zip(members, tables[name]):
            clean = over_seeds([seed.clean for seed in seeds if seed.clean], bounded=True)
            points = [(0.0, clean)] if clean else []
            drawn.append(
                series(variant, [*points, *((float(s), e) for s, e in sorted(estimates.items()))], place)
            )
        reach = max([5.0, *(x for each in drawn for x, _ in each.points)])
        axes = (linear_axis([0, reach]), PERCENT)
        title = name.replace("_", " ").capitalize()
        charts.append(
            line_chart(
                drawn, title=title, x_label="severity", y_label="accuracy, %", axes=axes, with_legend=False
            )
        )
    means = []
    for variant, _, seeds in members:
        before, after = (
            [seed.clean for seed in seeds if seed.clean],
            [seed.mean for seed in seeds if seed.mean],
        )
        means.append((variant, over_seeds(before, bounded=True), over_seeds(after, bounded=True)))
    grids = [_grid(name, tables[name]) for name in names]
    keys = legend([Series(variant, [], place) for variant, place, _ in members]) if len(members) > 1 else None
    every = [seed for _, _, seeds in members for seed in seeds]
    levels = [level for seed in every for each in seed.corruptions for level in each.severities]
    missing = sum(level.no_answer for level in levels)
    return CorruptionSection(Charts(charts, keys), means, grids, [seed.n for seed in every], missing)


def _severities(
    members: Sequence[tuple[str, int, Sequence[CorruptionFile]]], name: str
) -> list[tuple[str, dict[int, Estimate]]]:
    """For each member, the accuracy at each severity over its seeds."""
    rows = []
    for variant, _, seeds in members:
        by_severity: dict[int, list[Estimate]] = {}
        for seed in seeds:
            for corruption in seed.corruptions:
                for level in corruption.severities if corruption.name == name else ():
                    by_severity.setdefault(level.severity, []).append(level.accuracy)
        rows.append(
            (variant, {s: e for s, some in by_severity.items() if (e := over_seeds(some, bounded=True))})
        )
    return rows


def _grid(name: str, rows: Sequence[tuple[str, dict[int, Estimate]]]) -> HeatTable:
    severities = sorted({s for _, found in rows for s in found})
    cells = [(variant, [heat(found.get(s)) for s in severities]) for variant, found in rows]
    note = footnote(e for _, found in rows for e in found.values())
    return HeatTable(name.replace("_", " "), [str(s) for s in severities], cells, note)
