"""Whether to believe the attacks: what the audits of all results found."""

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
    """`rows`: (audit, for each recipe (kind of cell, words)) where some run shows a sign; `clean`
    found none on any run, `unchecked` were not carried out on some; `signs` every distinct finding
    with the runs that have it."""

    recipes: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]
    clean: Sequence[str]
    unchecked: Sequence[str]
    signs: Sequence[tuple[Finding, Sequence[str]]]

    @property
    def serious(self) -> list[tuple[Finding, Sequence[str]]]:
        return [(finding, runs) for finding, runs in self.signs if finding.severity == "serious"]


def audits(study: StudyFolder) -> Audits | None:
    """What the audits of all results found, the worst of a recipe's seeds and threats in its cell."""
    together: dict[str, dict[str, list[Finding]]] = {}
    signs: dict[Finding, dict[str, list[Run]]] = {}
    for recipe in study.recipes:
        for run in recipe.finished:
            for finding in audit_findings(run):
                together.setdefault(finding.audit, {}).setdefault(recipe.name, []).append(finding)
                if finding.status == "sign":
                    signs.setdefault(finding, {}).setdefault(recipe.name, []).append(run)
    if not together:
        return None
    recipes = [
        recipe.name for recipe in study.recipes if any(recipe.name in found for found in together.values())
    ]
    cells = {audit: [_cell(found.get(name, [])) for name in recipes] for audit, found in together.items()}
    kinds = {audit: {kind for kind, _ in row} for audit, row in cells.items()}
    rows = [(audit, row) for audit, row in cells.items() if kinds[audit] & {"serious", "minor", "none"}]
    rows.sort(key=lambda row: min(_SHOWN.index(kind) for kind, _ in row[1]))
    clean = [audit for audit in cells if kinds[audit] <= {"clean", ""}]
    unchecked = [audit for audit in cells if audit not in clean and audit not in dict(rows)]
    ordered = sorted(signs.items(), key=lambda pair: _rank(pair[0]))
    finished = {recipe.name: len(recipe.finished) for recipe in study.recipes}
    return Audits(
        recipes, rows, clean, unchecked, [(finding, _names(runs, finished)) for finding, runs in ordered]
    )


def _names(runs: Mapping[str, Sequence[Run]], finished: Mapping[str, int]) -> list[str]:
    """The recipes; of those not all of whose seeds are meant, the seeds."""
    return [
        name
        if len(of_recipe) == finished[name]
        else f"{name} seed {', '.join(str(run.seed) for run in of_recipe)}"
        for name, of_recipe in runs.items()
    ]


_SHOWN = ("serious", "minor", "none", "unchecked", "clean", "")


def _cell(found: Sequence[Finding]) -> tuple[str, str]:
    """The class of a cell and its words; of several results how many show a sign."""
    if not found:
        return "", "–"
    signs = [finding for finding in found if finding.status == "sign"]
    many = f" in {len(signs)} of {len(found)}" if len(found) > 1 and signs else ""
    if signs:
        worst = min(signs, key=_rank)
        return worst.severity, f"sign{many}"
    unchecked = [finding for finding in found if finding.status == "not checked"]
    return ("unchecked", "not checked") if unchecked else ("clean", "no sign")


def audit_findings(run: Run) -> list[Finding]:
    """Of all results of a run, the serious first; the same finding once."""
    found = dict.fromkeys(f for robust in run.stress.robust for f in robust.result.findings)
    return sorted(found, key=_rank)
