"""Robust accuracy differences in a study's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.charts.axes import linear_axis
from stresslens.charts.chart import Chart
from stresslens.charts.line_charts import line_chart
from stresslens.comparison.schema import (
    ROBUST_CONTRAST_COLUMNS,
    ContrastColumn,
    RobustContrast,
    UncomparedPair,
)
from stresslens.core.format import footnote
from stresslens.report.load import StudyFolder
from stresslens.robustness.robust_curves import NORMS, series

DRAWN = 8
"""Up to this number of contrasts, a threat's differences are drawn over all radii."""
ROWS = 200


@dataclass(frozen=True)
class RobustContrastSection:
    rows: Sequence[RobustContrast]
    left_out: int
    refused: Sequence[str]
    charts: Sequence[Chart]
    note: str
    columns: Sequence[ContrastColumn] = ROBUST_CONTRAST_COLUMNS


def robust_contrast_section(study: StudyFolder) -> RobustContrastSection | None:
    """Rows in their order. If there are too many, the real ones and those of smallest p stay."""
    found = study.comparison.robustness if study.comparison else []
    rows = [row for row in found if isinstance(row, RobustContrast)]
    refused = [row.verdict for row in found if isinstance(row, UncomparedPair)]
    if not found:
        return None
    shown = rows if len(rows) <= ROWS else sorted(rows, key=lambda row: (not row.real, row.p or 0.0))[:ROWS]
    by_threat: dict[tuple[str, str], list[RobustContrast]] = {}
    for row in rows:
        by_threat.setdefault((row.norm, row.protocol), []).append(row)
    charts = [
        _differences(norm, protocol, members)
        for (norm, protocol), members in by_threat.items()
        if len(members) <= DRAWN
    ]
    note = footnote(row.difference for row in shown)
    return RobustContrastSection(
        shown, len(rows) - len(shown), refused[:ROWS], [chart for chart in charts if chart], note
    )


def _differences(norm: str, protocol: str, rows: Sequence[RobustContrast]) -> Chart | None:
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
