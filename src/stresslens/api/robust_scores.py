"""Robust accuracies as scores of a study: those at radii at which all its runs were attacked alike."""

from __future__ import annotations

from pathlib import Path

from stresslens.core.format import radius
from stresslens.core.types import Estimate
from stresslens.report.load import StudyFolder
from stresslens.report.threats import Member, ThreatTable, threats


def robust_of_variants(study: StudyFolder) -> dict[str, dict[str, Estimate]]:
    """For each score, such as "robust@0.05", its estimate over the seeds of each variant, by the name of
    the variant's folder."""
    return {
        name: {
            member.variant.folder.name: estimate
            for member in threat.members
            if (estimate := member.at(eps)) is not None
        }
        for name, (threat, eps) in _levels(study).items()
    }


def robust_of_runs(study: StudyFolder) -> dict[Path, dict[str, float]]:
    """The value of each score, such as "robust@0.05", by the folder of the run."""
    found: dict[Path, dict[str, float]] = {}
    for name, (threat, eps) in _levels(study).items():
        for member in threat.members:
            for seed in member.seeds:
                if (estimate := Member(member.variant, [seed]).at(eps)) is not None:
                    found.setdefault(seed.folder.parent.parent, {})[name] = estimate.value
    return found


def _levels(study: StudyFolder) -> dict[str, tuple[ThreatTable, float]]:
    """The attack and the radius by the name of the score, where all finished runs were attacked in the
    same way on the split that counts. A radius of two attacks has no score, as its name would not tell
    which is meant."""
    levels: dict[str, list[tuple[ThreatTable, float]]] = {}
    for threat in threats(study):
        if threat.first.result.aimed or threat.first.result.split != study.split:
            continue
        attacked = {member.variant.name: len(member.seeds) for member in threat.members}
        if attacked != {each.name: len(each.finished) for each in study.variants if each.finished}:
            continue
        for eps in threat.radii:
            if all(eps in member.radii for member in threat.members):
                levels.setdefault(f"robust@{radius(eps)}", []).append((threat, eps))
    return {name: found[0] for name, found in levels.items() if len(found) == 1}
