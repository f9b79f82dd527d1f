"""The detectors of out-of-distribution images, on a run's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.evaluation.ood_record import DetectorScores, OODRecord, OODSetRecord
from stresslens.report.load import Run


@dataclass(frozen=True)
class OODTable:
    """A set of images: its detectors with their scores, the highest AUROC first."""

    name: str
    found: OODSetRecord
    rows: Sequence[tuple[str, DetectorScores]]


@dataclass(frozen=True)
class OODSection:
    found: OODRecord
    tables: Sequence[OODTable]


def ood_sections(run: Run) -> list[OODSection]:
    """The sets that detectors were compared on, beside each split; none without any."""
    found = {} if run.record.ood is None else run.record.ood.by_split
    return [OODSection(each, _tables(each)) for each in found.values() if each.sets]


def _tables(found: OODRecord) -> list[OODTable]:
    return [
        OODTable(name, each, sorted(each.detectors.items(), key=lambda row: -row[1].auroc.value))
        for name, each in found.sets.items()
    ]
