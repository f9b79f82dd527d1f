"""What a study's page shows beyond the attacks on each run: differences in robustness, transfers,
corruptions, certificates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stresslens.comparison.robustness import NORMS
from stresslens.comparison.schema import (
    ROBUST_CONTRAST_COLUMNS,
    ContrastColumn,
    RobustContrast,
    UncomparedPair,
)
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import wilson
from stresslens.report.axes import linear_axis
from stresslens.report.charts import Series, legend, line_chart
from stresslens.report.curves import PERCENT, Charts
from stresslens.report.format import footnote
from stresslens.report.load import Run, StudyFolder, VariantRuns, over_seeds
from stresslens.report.robustness_schema import Certificate, Corruptions
from stresslens.report.study_robustness import series

DRAWN = 8
"""Contrasts of a threat whose differences are drawn over all radii."""
ROWS = 200


@dataclass(frozen=True)
class Contrasts:
    rows: Sequence[RobustContrast]
    left_out: int
    refused: Sequence[str]
    charts: Sequence[Markup]
    note: str
    columns: Sequence[ContrastColumn] = ROBUST_CONTRAST_COLUMNS


def contrasts(study: StudyFolder) -> Contrasts | None:
    """Rows in their own order; beyond the budget the real and the likeliest stay."""
    found = study.comparison.robustness if study.comparison else []
    rows = [row for row in found if isinstance(row, RobustContrast)]
    refused = [row.verdict for row in found if isinstance(row, UncomparedPair)]
    if not found:
        return None
    shown = rows if len(rows) <= ROWS else sorted(rows, key=lambda row: (not row.real, row.p or 0.0))[:ROWS]
    together: dict[tuple[str, str], list[RobustContrast]] = {}
    for row in rows:
        together.setdefault((row.norm, row.protocol), []).append(row)
    charts = [
        _differences(norm, protocol, members)
        for (norm, protocol), members in together.items()
        if len(members) <= DRAWN
    ]
    note = footnote(row.difference for row in shown)
    return Contrasts(
        shown, len(rows) - len(shown), refused[:ROWS], [chart for chart in charts if chart], note
    )


def _differences(norm: str, protocol: str, rows: Sequence[RobustContrast]) -> Markup | None:
    drawn = [
        series(f"{row.b} − {row.a}", [(p.eps, p.difference) for p in row.curve], k)
        for k, row in enumerate(rows)
        if row.curve
    ]
    if not drawn:
        return None
    reach = max(x for each in drawn for x, _ in each.points)
    heights = [y for each in drawn for _, low, high in each.band for y in (low, high)] + [
        y for each in drawn for _, y in each.points
    ]
    return line_chart(
        drawn,
        title=f"Difference in robust accuracy, {NORMS[norm]}, {protocol}",
        x_label=f"radius in {NORMS[norm]}, pixels from 0 to 1",
        y_label="points",
        axes=(linear_axis([0, reach]), linear_axis([0, *heights])),
        reference=("no difference", [(0.0, 0.0), (reach, 0.0)]),
    )


@dataclass(frozen=True)
class Heat:
    """A cell: its estimate, the shade from 0 to 9 and a class."""

    estimate: Estimate
    shade: int
    kind: str = ""


@dataclass(frozen=True)
class TransferGrid:
    """A table of accuracies: `rows` are (name, cells), None where there is nothing to say."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Heat | None]]]
    note: str
    eps: float = 0.0


def transfers(study: StudyFolder) -> list[TransferGrid]:
    """A matrix for each threat; the rows' runs are those that the images were made to fool. Darker
    fools more."""
    found = []
    for group in study.transfers.groups if study.transfers else []:
        rows = []
        for source, estimates in zip(group.sources, group.accuracy):
            kinds = ["own" if source == target else "" for target in group.targets]
            cells = [
                Heat(e, math.ceil(9 * (1 - e.value)), kind) if e else None
                for e, kind in zip(estimates, kinds)
            ]
            rows.append((source, cells))
        note = footnote(e for estimates in group.accuracy for e in estimates)
        found.append(
            TransferGrid(
                f"{NORMS.get(group.norm, group.norm)}, protocol {group.protocol}",
                group.targets,
                rows,
                note,
                group.eps,
            )
        )
    return found


@dataclass(frozen=True)
class Corrupted:
    """`means` are (run, unattacked, mean over corruptions and severities); `charts` one for each
    corruption."""

    charts: Charts
    means: Sequence[tuple[str, Estimate | None, Estimate | None]]
    grids: Sequence[TransferGrid]
    n: Sequence[int]
    note: str


def corruptions(study: StudyFolder) -> Corrupted | None:
    """Accuracy against severity of every recipe, the mean over its seeds."""
    found = [
        (recipe, [run.stress.corruptions for run in recipe.finished if run.stress.corruptions])
        for recipe in study.recipes
    ]
    return _corrupted([(recipe.name, recipe.place, seeds) for recipe, seeds in found if seeds])


def run_corruptions(run: Run) -> Corrupted | None:
    return _corrupted([(run.name, 0, [run.stress.corruptions])]) if run.stress.corruptions else None


def _corrupted(members: Sequence[tuple[str, int, Sequence[Corruptions]]]) -> Corrupted | None:
    if not members:
        return None
    names = list(
        dict.fromkeys(each.name for _, _, seeds in members for seed in seeds for each in seed.corruptions)
    )
    charts, tables = [], {name: _severities(members, name) for name in names}
    for name in names:
        drawn = []
        for (recipe, place, seeds), (_, estimates) in zip(members, tables[name]):
            clean = over_seeds([seed.clean for seed in seeds if seed.clean], bounded=True)
            points = [(0.0, clean)] if clean else []
            drawn.append(
                series(recipe, [*points, *((float(s), e) for s, e in sorted(estimates.items()))], place)
            )
        reach = max([5.0, *(x for each in drawn for x, _ in each.points)])
        axes = (linear_axis([0, reach]), PERCENT)
        title = name.replace("_", " ").capitalize()
        charts.append(
            line_chart(
                drawn, title=title, x_label="severity", y_label="right, %", axes=axes, with_legend=False
            )
        )
    means = []
    for recipe, _, seeds in members:
        before, after = (
            [seed.clean for seed in seeds if seed.clean],
            [seed.mean for seed in seeds if seed.mean],
        )
        means.append((recipe, over_seeds(before, bounded=True), over_seeds(after, bounded=True)))
    grids = [_grid(name, tables[name]) for name in names]
    note = footnote(e for _, clean, mean in means for e in (clean, mean))
    keys = legend([Series(recipe, [], place) for recipe, place, _ in members]) if len(members) > 1 else None
    return Corrupted(
        Charts(charts, keys), means, grids, [seed.n for _, _, seeds in members for seed in seeds], note
    )


def _severities(
    members: Sequence[tuple[str, int, Sequence[Corruptions]]], name: str
) -> list[tuple[str, dict[int, Estimate]]]:
    """For each member the accuracy at each severity, over its seeds."""
    rows = []
    for recipe, _, seeds in members:
        together: dict[int, list[Estimate]] = {}
        for seed in seeds:
            for each in seed.corruptions:
                for level in each.severities if each.name == name else ():
                    together.setdefault(level.severity, []).append(level.accuracy)
        rows.append((recipe, {s: e for s, some in together.items() if (e := over_seeds(some, bounded=True))}))
    return rows


def _grid(name: str, rows: Sequence[tuple[str, dict[int, Estimate]]]) -> TransferGrid:
    severities = sorted({s for _, found in rows for s in found})
    cells = [(recipe, [_heat(found.get(s)) for s in severities]) for recipe, found in rows]
    note = footnote(e for _, found in rows for e in found.values())
    return TransferGrid(name.replace("_", " "), [str(s) for s in severities], cells, note)


def _heat(estimate: Estimate | None) -> Heat | None:
    if estimate is None or not math.isfinite(estimate.value):
        return None
    return Heat(estimate, math.ceil(9 * (1 - estimate.value)))


@dataclass(frozen=True)
class CertifiedSection:
    """`rows` are (run, images, abstained, smoothed accuracy, certified accuracy at each of `radii`)."""

    title: str
    chart: Markup
    radii: Sequence[float]
    rows: Sequence[tuple[str, int, int, Estimate | None, Sequence[Estimate | None]]]
    note: str


def certificates(study: StudyFolder) -> list[CertifiedSection]:
    """One for each certificate and its options."""
    return _certified([(recipe, run) for recipe in study.recipes for run in recipe.finished])


def run_certificates(run: Run) -> list[CertifiedSection]:
    return _certified([(VariantRuns(run.name, (run,), 0), run)])


def _certified(runs: Sequence[tuple[VariantRuns, Run]]) -> list[CertifiedSection]:
    together: dict[str, dict[str, tuple[VariantRuns, list[Certificate]]]] = {}
    for recipe, run in runs:
        for each in run.stress.certificates:
            result = each.result
            options = ", ".join(f"{name} {value}" for name, value in sorted(result.options.items()))
            norm = NORMS.get(result.norm, result.norm)
            title = f"{result.certificate.replace('_', ' ').capitalize()}, {norm}{f' ({options})' if options else ''}"
            together.setdefault(title, {}).setdefault(recipe.name, (recipe, []))[1].append(each)
    return [_certificate(title, list(members.values())) for title, members in sorted(together.items())]


def _certificate(
    title: str, members: Sequence[tuple[VariantRuns, Sequence[Certificate]]]
) -> CertifiedSection:
    drawn = []
    for recipe, seeds in members:
        radii = sorted({point.radius for seed in seeds for point in seed.result.curve})
        found = [(r, e) for r in radii if (e := _certified_at(seeds, r))]
        drawn.append(series(recipe.name, found, recipe.place))
    axis = linear_axis([0, *(x for each in drawn for x, _ in each.points)])
    shown = [tick for tick in axis.ticks if tick >= 0][:DRAWN]
    rows = []
    for recipe, seeds in members:
        smoothed = over_seeds([e for seed in seeds if (e := seed.result.smoothed_accuracy)], bounded=True)
        counts = sum(seed.result.n for seed in seeds), sum(seed.result.abstained for seed in seeds)
        rows.append((recipe.name, *counts, smoothed, [_certified_at(seeds, r) for r in shown]))
    norm = members[0][1][0].result.norm
    label = f"radius in {NORMS.get(norm, norm)}, pixels from 0 to 1"
    chart = line_chart(
        drawn,
        title=f"Certified accuracy, {title}",
        x_label=label,
        y_label="certified right, %",
        axes=(axis, PERCENT),
    )
    return CertifiedSection(
        title, chart, shown, rows, footnote(e for _, _, _, smoothed, some in rows for e in (smoothed, *some))
    )


def _certified_at(seeds: Sequence[Certificate], r: float) -> Estimate | None:
    """The share certified beyond a radius (at 0: right), over the seeds; without arrays only at the
    radii of the curve."""
    found = []
    for seed in seeds:
        at = [point.certified for point in seed.result.curve if math.isclose(point.radius, r, abs_tol=1e-9)]
        if seed.radius is not None:
            held = seed.radius > r if r > 0 else seed.radius >= 0
            at = [wilson(int(held.sum()), len(held))]
        found += at[:1]
    return over_seeds(found, bounded=True) if len(found) == len(seeds) else None
