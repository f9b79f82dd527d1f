"""Certified accuracy over the radius, in a study's and a run's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stresslens.comparison.robustness import NORMS
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import wilson
from stresslens.report.axes import linear_axis
from stresslens.report.charts import line_chart
from stresslens.report.curves import PERCENT
from stresslens.report.format import footnote
from stresslens.report.load import Run, StudyFolder, VariantRuns, over_seeds
from stresslens.report.robust_curves import series
from stresslens.report.stress import CertificateFolder

RADII = 8
"""Radii of a table, at most."""


@dataclass(frozen=True)
class CertificateSection:
    """`rows` are (run, images, abstained, smoothed accuracy, certified accuracy at each of `radii`)."""

    title: str
    chart: Markup
    radii: Sequence[float]
    rows: Sequence[tuple[str, int, int, Estimate | None, Sequence[Estimate | None]]]
    note: str


def certificate_sections(study: StudyFolder) -> list[CertificateSection]:
    """One for each certificate and its options."""
    return _sections([(recipe, run) for recipe in study.recipes for run in recipe.finished])


def run_certificate_sections(run: Run) -> list[CertificateSection]:
    return _sections([(VariantRuns(run.name, (run,), 0), run)])


def _sections(runs: Sequence[tuple[VariantRuns, Run]]) -> list[CertificateSection]:
    together: dict[str, dict[str, tuple[VariantRuns, list[CertificateFolder]]]] = {}
    for recipe, run in runs:
        for each in run.stress.certificates:
            result = each.result
            options = ", ".join(f"{name} {value}" for name, value in sorted(result.options.items()))
            norm = NORMS.get(result.norm, result.norm)
            title = f"{result.certificate.replace('_', ' ').capitalize()}, {norm}{f' ({options})' if options else ''}"
            together.setdefault(title, {}).setdefault(recipe.name, (recipe, []))[1].append(each)
    return [_section(title, list(members.values())) for title, members in sorted(together.items())]


def _section(
    title: str, members: Sequence[tuple[VariantRuns, Sequence[CertificateFolder]]]
) -> CertificateSection:
    drawn = []
    for recipe, seeds in members:
        radii = sorted({point.radius for seed in seeds for point in seed.result.curve})
        found = [(r, e) for r in radii if (e := _certified_at(seeds, r))]
        drawn.append(series(recipe.name, found, recipe.place))
    axis = linear_axis([0, *(x for each in drawn for x, _ in each.points)])
    shown = [tick for tick in axis.ticks if tick >= 0][:RADII]
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
    return CertificateSection(
        title, chart, shown, rows, footnote(e for _, _, _, smoothed, some in rows for e in (smoothed, *some))
    )


def _certified_at(seeds: Sequence[CertificateFolder], r: float) -> Estimate | None:
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
