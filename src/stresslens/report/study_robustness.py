"""Robustness in a study's page: curves over radii, and which attacks broke the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stresslens.charts.chart import Chart
from stresslens.charts.line_charts import Series, legend
from stresslens.core.format import footnote, radius
from stresslens.core.types import Estimate
from stresslens.report.curves import SHARED_LEGEND, Charts
from stresslens.report.individual_attacks import IndividualAttackTable, individual_attack_table
from stresslens.report.load import StudyFolder, VariantRuns
from stresslens.report.threats import Member, ThreatTable, threats
from stresslens.robustness.robust_curves import robust_chart, series, shown_radii


@dataclass(frozen=True)
class RobustnessSection:
    """What the page shows of one threat. `rows` are (variant, unattacked, one estimate for each of
    `radii`, n, seeds)."""

    threat: ThreatTable
    charts: Charts
    radii: Sequence[float]
    rows: Sequence[tuple[VariantRuns, Estimate | None, Sequence[Estimate | None], Sequence[int], int]]
    note: str
    breaking: Breaking | None
    individual_attacks: IndividualAttackTable | None


def robustness_sections(study: StudyFolder, data: str = "") -> list[RobustnessSection]:
    """A section for each threat; `data` names the data set, if the study has several."""
    sections = []
    for threat in threats(study):
        threat = replace(threat, title=f"{threat.title}, {data}") if data else threat
        radii = shown_radii(threat.radii)
        rows = [
            (m.variant, m.at(0.0), [m.at(eps) for eps in radii], m.n, len(m.seeds)) for m in threat.members
        ]
        curves = _curves(threat)
        shared = len(curves) >= SHARED_LEGEND
        charts = [threat_chart(threat, with_legend=not shared)] if radii else []
        table = individual_attack_table(threat)
        if table:
            charts += [robust_chart(lines, threat.norm, title) for title, lines in table.overlays]
        note = footnote(e for _, clean, estimates, _, _ in rows for e in (clean, *estimates))
        together = Charts(charts, legend(curves) if shared else None)
        sections.append(
            RobustnessSection(threat, together, radii, rows, note, breaking(threat.members), table)
        )
    return sections


def threat_chart(threat: ThreatTable, *, with_legend: bool = True) -> Chart:
    """The robust accuracy of each variant over the radius."""
    title = f"{threat.measure}, {threat.title}"
    return robust_chart(_curves(threat), threat.norm, title, with_legend=with_legend)


def _curves(threat: ThreatTable) -> list[Series]:
    return [_curve(member, threat.radii) for member in threat.members]


def _curve(member: Member, radii: Sequence[float]) -> Series:
    found = [(eps, e) for eps in (0.0, *radii) if (e := member.at(eps)) and math.isfinite(e.value)]
    return series(member.variant.name, found, member.variant.place)


@dataclass(frozen=True)
class Breaking:
    """What broke the images. Columns are the attempts in order. A row has (name, images, wrong
    unattacked, broken by each, survivors, median and quartiles of the iterations up to the break,
    median radius)."""

    attempts: Sequence[str]
    rows: Sequence[tuple[str, int, int, Sequence[int], int, str, str]]


def breaking(members: Sequence[Member]) -> Breaking | None:
    """Counts over all seeds that have their arrays."""
    attempts = list(
        dict.fromkeys(
            str(name) for m in members for each in m.seeds if each.arrays for name in each.arrays["names"]
        )
    )
    rows = []
    for member in members:
        seeds = [each.arrays for each in member.seeds if each.arrays is not None]
        if not seeds:
            continue
        smallest, steps = (np.concatenate([a[key] for a in seeds]) for key in ("smallest", "steps"))
        # index -1 is the last name, "": not broken
        by = np.concatenate([np.append(a["names"].astype(str), "")[a["by"]] for a in seeds])
        broken = (smallest > 0) & np.isfinite(smallest)
        counts = [int(((by == name) & broken).sum()) for name in attempts]
        right = smallest[smallest > 0]
        median = np.sort(right)[(len(right) - 1) // 2] if len(right) else math.nan
        median_radius = (
            "–" if math.isnan(median) else radius(float(median)) if math.isfinite(median) else "above all"
        )
        wrong, survivors = int((smallest == 0).sum()), int(np.isinf(smallest).sum())
        rows.append(
            (
                member.variant.name,
                len(smallest),
                wrong,
                counts,
                survivors,
                _quartiles(steps[broken]),
                median_radius,
            )
        )
    return Breaking(attempts, rows) if rows else None


def _quartiles(steps: np.ndarray) -> str:
    if not len(steps):
        return "–"
    low, middle, high = np.quantile(steps, [0.25, 0.5, 0.75], method="nearest")
    return f"{middle} ({low} to {high})"


def damaged(study: StudyFolder) -> list[str]:
    """Files of attacks, corruptions and certificates that could not be read, and why."""
    return [f"{run.name}/seed-{run.seed}/{problem}" for run in study.runs for problem in run.stress.damaged]
