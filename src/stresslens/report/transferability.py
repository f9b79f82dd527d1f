"""Transferability in a study's page: accuracy of each run on the adversarial images of another."""

from __future__ import annotations

from stresslens.core.format import footnote
from stresslens.report.heat_table import HeatTable, heat
from stresslens.report.load import StudyFolder
from stresslens.robustness.robust_curves import NORMS


def transfer_tables(study: StudyFolder) -> list[HeatTable]:
    """A matrix for each threat. Rows are the runs that the images were made to fool. The darker a
    cell, the more images transfer."""
    tables = []
    for group in study.transfers.groups if study.transfers else []:
        rows = []
        for source, estimates in zip(group.sources, group.accuracy):
            kinds = ["own" if source == target else "" for target in group.targets]
            rows.append((source, [heat(e, kind) for e, kind in zip(estimates, kinds)]))
        note = footnote(e for estimates in group.accuracy for e in estimates)
        tables.append(
            HeatTable(
                f"{NORMS.get(group.norm, group.norm)}, protocol {group.protocol}",
                group.targets,
                rows,
                note,
                group.eps,
            )
        )
    return tables
