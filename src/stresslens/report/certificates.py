"""Certified accuracy over the radius, for the pages of a study and of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.charts.axes import PERCENT, linear_axis
from stresslens.charts.chart import Chart
from stresslens.charts.line_charts import line_chart
from stresslens.core.format import footnote
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import wilson
from stresslens.metrics.random_effects import over_seeds
from stresslens.report.load import Run, StudyFolder, VariantRuns
from stresslens.report.stress import CertificateFolder
from stresslens.robustness.certificate_file import CertificateFile
from stresslens.robustness.robust_curves import NORMS, series

RADII = 8
"""Largest number of radii in a table."""


@dataclass(frozen=True)
class CertificateSection:
    """`rows` are (run, images, abstained, smoothed accuracy, certified accuracy at each of `radii`)."""

    title: str
    chart: Chart
    radii: Sequence[float]
    rows: Sequence[tuple[str, int, int, Estimate | None, Sequence[Estimate | None]]]
    note: str
    """What is proved, in sentences."""
    intervals: str
    """How the intervals were computed."""


def certificate_sections(study: StudyFolder) -> list[CertificateSection]:
    """One section for each certificate and its options."""
    return _sections([(variant, run) for variant in study.variants for run in variant.finished])


def run_certificate_sections(run: Run) -> list[CertificateSection]:
    return _sections([(VariantRuns(run.name, (run,), 0), run)])


def _sections(runs: Sequence[tuple[VariantRuns, Run]]) -> list[CertificateSection]:
    by_title: dict[str, dict[str, tuple[VariantRuns, list[CertificateFolder]]]] = {}
    for variant, run in runs:
        for certificate in run.stress.certificates:
            result = certificate.result
            options = ", ".join(f"{name} {value}" for name, value in sorted(result.options.items()))
            norm = NORMS.get(result.norm, result.norm)
            name = result.certificate.replace("_", " ").capitalize()
            title = f"{name}, {norm}{f' ({options})' if options else ''}"
            by_title.setdefault(title, {}).setdefault(variant.name, (variant, []))[1].append(certificate)
    return [_section(title, list(members.values())) for title, members in sorted(by_title.items())]


def _section(
    title: str, members: Sequence[tuple[VariantRuns, Sequence[CertificateFolder]]]
) -> CertificateSection:
    drawn = []
    for variant, seeds in members:
        radii = sorted({point.radius for seed in seeds for point in seed.result.curve})
        points = [(r, e) for r in radii if (e := _certified_at(seeds, r))]
        drawn.append(series(variant.name, points, variant.place))
    axis = linear_axis([0, *(x for each in drawn for x, _ in each.points)])
    columns = [tick for tick in axis.ticks if tick >= 0][:RADII]
    rows = []
    for variant, seeds in members:
        smoothed = over_seeds([e for seed in seeds if (e := seed.result.smoothed_accuracy)], bounded=True)
        counts = sum(seed.result.n for seed in seeds), sum(seed.result.abstained for seed in seeds)
        rows.append((variant.name, *counts, smoothed, [_certified_at(seeds, r) for r in columns]))
    norm = members[0][1][0].result.norm
    label = f"radius in {NORMS.get(norm, norm)}, pixels from 0 to 1"
    chart = line_chart(
        drawn,
        title=f"Certified accuracy, {title}",
        x_label=label,
        y_label="certified accuracy, %",
        axes=(axis, PERCENT),
    )
    intervals = footnote(e for _, _, _, smoothed, some in rows for e in (smoothed, *some))
    result = members[0][1][0].result
    missing = sum(seed.result.no_answer for _, seeds in members for seed in seeds)
    told = f" {missing} images have no answer (not finite), also without noise." if missing else ""
    return CertificateSection(title, chart, columns, rows, f"{_meaning(result)}{told}", intervals)


def _meaning(result: CertificateFile) -> str:
    """What is proved, about which model, and up to which radius."""
    proved = (
        "Share of images that are classified correctly and proved to stay so within the radius. "
        "An image on which the certificate abstains counts as not certified."
    )
    if result.certificate != "smoothing":
        return f"{proved} No attack within the radius can break a certified image."
    limit = result.largest_radius
    beyond = "" if limit is None else f" With this n no radius beyond {limit:.3g} can be certified."
    return (
        f"{proved}{beyond} No attack within the radius can break a certified image of the smoothed model; "
        "the certificate may be wrong with its stated failure probability for each image, and says "
        "nothing about the model without smoothing."
    )


def _certified_at(seeds: Sequence[CertificateFolder], r: float) -> Estimate | None:
    """The share of images certified beyond a radius (at 0: classified correctly), over the seeds.
    Without arrays, only at the radii of the curve."""
    estimates = []
    for seed in seeds:
        at = [point.certified for point in seed.result.curve if math.isclose(point.radius, r, abs_tol=1e-9)]
        if seed.radius is not None:
            certified = seed.radius > r if r > 0 else seed.radius >= 0
            at = [wilson(int(certified.sum()), len(certified))]
        estimates += at[:1]
    return over_seeds(estimates, bounded=True) if len(estimates) == len(seeds) else None
