"""The detectors of out-of-distribution images, on a run's page."""

from __future__ import annotations

from stresslens.evaluation.ood_record import OODRecord
from stresslens.report.load import Run


def ood_sections(run: Run) -> list[OODRecord]:
    """The sets that detectors were compared on, beside each split; none without any."""
    found = {} if run.record.ood is None else run.record.ood.by_split
    return [each for each in found.values() if each.sets]
