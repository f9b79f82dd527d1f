"""Audit findings on the attacks of all runs, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stresslens.core.types import Finding
from stresslens.report.load import Run, StudyFolder

RANK = {("sign", "serious"): 0, ("sign", "minor"): 1, ("sign", "none"): 2, ("not checked", "none"): 3}


def _rank(finding: Finding) -> int:
    return RANK.get((finding.status, finding.severity), 4)


@dataclass(frozen=True)
class Audits:
    """`rows`: (audit, for each variant (kind of cell, words)) for audits that show a sign on some
    run. `clean`: audits that found none on any run. `unchecked`: audits that were not made on some
    runs. `signs`: every distinct finding with the runs that have it."""

    variants: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    clean: Sequence[str]
    unchecked: Sequence[str]
    signs: Sequence[tuple[Finding, Sequence[str]]]

    @property
    def serious(self) -> list[tuple[Finding, Sequence[str]]]:
        return [(finding, runs) for finding, runs in self.signs if finding.severity == "serious"]


def audits(study: StudyFolder) -> Audits | None:
    """The findings of the audits on all results. A variant's cell shows the worst of its seeds and
    threats."""
    by_audit: dict[str, dict[str, list[Finding]]] = {}
    signs: dict[Finding, dict[str, list[Run]]] = {}
    for variant in study.variants:
        for run in variant.finished:
            for finding in audit_findings(run):
                by_audit.setdefault(finding.audit, {}).setdefault(variant.name, []).append(finding)
                if finding.status == "sign":
                    signs.setdefault(finding, {}).setdefault(variant.name, []).append(run)
    if not by_audit:
        return None
    variants = [
        variant.name
        for variant in study.variants
        if any(variant.name in found for found in by_audit.values())
    ]
    cells = {audit: [_cell(found.get(name, [])) for name in variants] for audit, found in by_audit.items()}
    kinds = {audit: {kind for kind, _ in row} for audit, row in cells.items()}
    rows = [(audit, row) for audit, row in cells.items() if kinds[audit] & {"serious", "minor", "none"}]
    rows.sort(key=lambda row: min(_SHOWN.index(kind) for kind, _ in row[1]))
    clean = [audit for audit in cells if kinds[audit] <= {"clean", ""}]
    unchecked = [audit for audit in cells if audit not in clean and audit not in dict(rows)]
    ordered = sorted(signs.items(), key=lambda pair: _rank(pair[0]))
    finished = {variant.name: len(variant.finished) for variant in study.variants}
    return Audits(
        variants, rows, clean, unchecked, [(finding, _names(runs, finished)) for finding, runs in ordered]
    )


def _names(runs: Mapping[str, Sequence[Run]], finished: Mapping[str, int]) -> list[str]:
    """The variants' names, with their seeds if the finding is not on all of them."""
    return [
        name
        if len(of_recipe) == finished[name]
        else f"{name} seed {', '.join(str(run.seed) for run in of_recipe)}"
        for name, of_recipe in runs.items()
    ]


_SHOWN = ("serious", "minor", "none", "unchecked", "clean", "")


def _cell(findings: Sequence[Finding]) -> tuple[str, str]:
    """The class of a cell and its words; with several results, how many show a sign."""
    if not findings:
        return "", "–"
    signs = [finding for finding in findings if finding.status == "sign"]
    many = f" in {len(signs)} of {len(findings)}" if len(findings) > 1 and signs else ""
    if signs:
        worst = min(signs, key=_rank)
        return worst.severity, f"sign{many}"
    unchecked = [finding for finding in findings if finding.status == "not checked"]
    return ("unchecked", "not checked") if unchecked else ("clean", "no sign")


def audit_findings(run: Run) -> list[Finding]:
    """The findings on all results of a run, the serious first, each once."""
    found = dict.fromkeys(f for robust in run.stress.robust for f in robust.result.findings)
    return sorted(found, key=_rank)
