"""Test-time augmentation, for the pages of a study and of a run: the accuracy of probabilities averaged
over views, beside that of the image alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.core.types import Estimate
from stresslens.evaluation.record import AveragedRecord
from stresslens.metrics.random_effects import over_seeds
from stresslens.report.load import Run, StudyFolder


@dataclass(frozen=True)
class AveragedRow:
    """`name` is a variant, or a split of a run; `gain` is the paired difference of the two
    accuracies."""

    name: str
    passes: int
    views: str
    alone: Estimate | None
    averaged: Estimate | None
    gain: Estimate | None
    seeds: int


def averaged_rows(study: StudyFolder) -> list[AveragedRow]:
    """A row for each variant, and for each choice of views where its seeds differ in that."""
    rows = []
    for variant in study.variants:
        by_views: dict[str, list[AveragedRecord]] = {}
        for run in variant.finished:
            found = run.record.averaged
            if found is not None and study.split in found.gain:
                by_views.setdefault(_named(found), []).append(found)
        rows += [_row(variant.name, records, study.split) for records in by_views.values()]
    return rows


def run_averaged_rows(run: Run) -> list[AveragedRow]:
    """A row for each split."""
    found = run.record.averaged
    return [] if found is None else [_row(split, [found], split) for split in found.gain]


def _row(name: str, records: Sequence[AveragedRecord], split: str) -> AveragedRow:
    return AveragedRow(
        name,
        records[0].passes,
        _named(records[0]),
        over_seeds([each.alone[split] for each in records], bounded=True),
        over_seeds([each.scores[split]["accuracy"] for each in records], bounded=True),
        over_seeds([each.gain[split] for each in records], bounded=False),
        len(records),
    )


def _named(found: AveragedRecord) -> str:
    return ", ".join(found.views).replace("_", " ")
