"""Threat models of a study's attacks, and the robust accuracy of each variant under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stresslens.comparison.robustness import attack_family, unbroken
from stresslens.core.ball import same_radius
from stresslens.core.types import Estimate
from stresslens.metrics import random_effects
from stresslens.metrics.random_effects import over_seeds
from stresslens.report.load import StudyFolder, VariantRuns
from stresslens.report.stress import AttackFolder
from stresslens.robustness.robust_curves import threat_name


@dataclass(frozen=True)
class Member:
    """One variant under one threat: the results of its finished seeds."""

    variant: VariantRuns
    seeds: Sequence[AttackFolder]

    def at(self, eps: float) -> Estimate | None:
        """Robust accuracy over seeds and images, paired if the seeds were attacked on the same
        images; at radius 0 the unattacked accuracy."""
        right = [unbroken(each.arrays["smallest"], eps) for each in self.seeds if each.arrays is not None]
        if len(right) == len(self.seeds) and self._same_images:
            return random_effects.proportion(np.stack(right).astype(np.float32))
        found = [
            level.robust for each in self.seeds for level in each.result.curve if same_radius(level.eps, eps)
        ]
        if eps == 0:
            found = [each.result.clean for each in self.seeds]
        return over_seeds(found, bounded=True) if len(found) == len(self.seeds) else None

    @property
    def clean_top5(self) -> Estimate | None:
        """Top-5 accuracy without attack; None where results of earlier versions do not have it."""
        found = [each.result.clean_top5 for each in self.seeds if each.result.clean_top5]
        return over_seeds(found, bounded=True) if len(found) == len(self.seeds) else None

    @property
    def _same_images(self) -> bool:
        first, *others = (each.arrays for each in self.seeds if each.arrays is not None)
        return all(
            len(a["index"]) == len(first["index"])
            and (a["index"] == first["index"]).all()
            and (a["labels"] == first["labels"]).all()
            for a in others
        )

    @property
    def radii(self) -> list[float]:
        """The radii that all seeds have."""
        by_seed = [{float(f"{r:.9g}") for r in each.result.radii} for each in self.seeds]
        return sorted(set.intersection(*by_seed))

    @property
    def n(self) -> list[int]:
        return [each.result.n for each in self.seeds]


@dataclass(frozen=True)
class ThreatTable:
    """All variants that were attacked in the same way."""

    title: str
    norm: str
    members: Sequence[Member]

    @property
    def first(self) -> AttackFolder:
        return self.members[0].seeds[0]

    @property
    def measure(self) -> str:
        """What the curves show; of the target alone it is no robust accuracy."""
        return self.first.result.measure.capitalize()

    @property
    def radii(self) -> list[float]:
        return sorted({r for member in self.members for r in member.radii if r > 0})

    @property
    def attempts(self) -> list[str]:
        return self.first.attempts


def threats(study: StudyFolder) -> list[ThreatTable]:
    """Results of finished runs by norm, protocol, its attacks and target, in that order."""
    by_family: dict[str, dict[str, tuple[VariantRuns, dict[int, AttackFolder]]]] = {}
    for variant in study.variants:
        for run in variant.finished:
            for robust in run.stress.robust:
                _, seeds = by_family.setdefault(attack_family(robust.result), {}).setdefault(
                    variant.name, (variant, {})
                )
                seeds[run.seed] = robust
    groups = [
        [Member(variant, list(seeds.values())) for variant, seeds in members.values()]
        for _, members in sorted(by_family.items())
    ]
    titles = [title_of(group[0].seeds[0]) for group in groups]
    keys = [
        f" · {group[0].seeds[0].result.key}" if titles.count(title) > 1 else ""
        for group, title in zip(groups, titles)
    ]
    return [
        ThreatTable(title + key, group[0].seeds[0].result.norm, group)
        for group, title, key in zip(groups, titles, keys)
    ]


def title_of(robust: AttackFolder) -> str:
    return threat_name(robust.result)
