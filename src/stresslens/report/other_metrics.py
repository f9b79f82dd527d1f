"""The contrasts of a study by metrics other than accuracy, for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stresslens.charts.chart import Chart
from stresslens.comparison.schema import ComparisonByMetric, Contrast
from stresslens.core.format import percent_sign, plain, points, signed_plain
from stresslens.core.types import Estimate
from stresslens.metrics.measures import Measure, measure_of
from stresslens.report.comparison import difference_chart, one_contrast, shown_contrasts
from stresslens.report.load import StudyFolder

CHARTED = 60
"""Most contrasts in a chart."""


@dataclass(frozen=True)
class MetricSection:
    """The contrasts by one metric, and the figures of the variants."""

    measure: Measure
    of: ComparisonByMetric
    rows: Sequence[Contrast]
    left_out: int
    chart: Chart | None

    @property
    def title(self) -> str:
        return self.measure.words[:1].upper() + self.measure.words[1:]

    @property
    def heading(self) -> str:
        """The head of the column of differences."""
        unit = self.measure.unit
        return f"Difference, {unit}" if unit else "Difference"

    @property
    def one_contrast(self) -> str:
        return one_contrast(self.rows)

    @property
    def figures(self) -> Mapping[str, Estimate]:
        return self.of.recipes

    def figure(self, variant: str) -> str:
        """The metric of a variant with its interval; empty where it has none."""
        found = self.of.recipes.get(variant)
        if found is None:
            return ""
        return percent_sign(found) if self.measure.is_share else plain(found)

    def difference(self, row: Contrast) -> str:
        return (points if self.measure.is_share else signed_plain)(row.difference)


def metric_sections(study: StudyFolder) -> list[MetricSection]:
    """A section for each further metric of comparison.json."""
    found = []
    for metric, of in (study.comparison.by_metric if study.comparison else {}).items():
        rows, left_out = shown_contrasts(of.contrasts)
        chart = difference_chart(of.contrasts) if 1 < len(of.contrasts) <= CHARTED else None
        found.append(MetricSection(measure_of(metric), of, rows, left_out, chart))
    return found
