"""Robustness in a study's page: curves over radii, what broke the images, each attack by itself,
and whether to believe it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from stresslens.comparison import robustness
from stresslens.comparison.robustness import NORMS, unbroken
from stresslens.core.ball import same_radius
from stresslens.core.types import Estimate, Finding
from stresslens.metrics import random_effects
from stresslens.report.axes import linear_axis
from stresslens.report.charts import Series, legend, line_chart
from stresslens.report.curve_colours import place_of
from stresslens.report.curves import PERCENT, SHARED_LEGEND, Charts
from stresslens.report.format import footnote, percent, radius
from stresslens.report.load import Run, StudyFolder, VariantRuns, over_seeds
from stresslens.report.robustness_schema import Alone, AloneRow, Robust

COLUMNS = 6
"""Radii of a table; of more, the first and the last and four between them."""
ONE_STEP = ("fgsm",)
SENTENCES = 12


@dataclass(frozen=True)
class Member:
    """One recipe under one threat: the results of its finished seeds."""

    recipe: VariantRuns
    seeds: Sequence[Robust]

    def at(self, eps: float) -> Estimate | None:
        """Robust accuracy over seeds and images, paired where the seeds were attacked on the same
        images; at 0 the clean one."""
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
        asked = [{float(f"{r:.9g}") for r in each.result.radii} for each in self.seeds]
        return sorted(set.intersection(*asked))

    @property
    def n(self) -> list[int]:
        return [each.result.n for each in self.seeds]


@dataclass(frozen=True)
class ThreatTable:
    """All recipes that were attacked in the same way."""

    title: str
    norm: str
    members: Sequence[Member]

    @property
    def first(self) -> Robust:
        return self.members[0].seeds[0]

    @property
    def radii(self) -> list[float]:
        return sorted({r for member in self.members for r in member.radii if r > 0})

    @property
    def attempts(self) -> list[str]:
        return self.first.attempts


def threats(study: StudyFolder) -> list[ThreatTable]:
    """Results of finished runs by norm, protocol, its attacks and target, in that order."""
    together: dict[str, dict[str, tuple[VariantRuns, dict[int, Robust]]]] = {}
    for recipe in study.recipes:
        for run in recipe.finished:
            for robust in run.stress.robust:
                _, seeds = together.setdefault(threat_family(robust), {}).setdefault(
                    recipe.name, (recipe, {})
                )
                seeds[run.seed] = robust
    groups = [
        [Member(recipe, list(seeds.values())) for recipe, seeds in members.values()]
        for _, members in sorted(together.items())
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


def threat_family(robust: Robust) -> str:
    """Equal where two results are shown together; the order is that of the page."""
    return robustness.attack_family(robust.result.model_dump())


def title_of(robust: Robust) -> str:
    r = robust.result
    protocol = {"own": "attacks of its own", "none": "attacks by themselves"}.get(
        r.protocol, f"protocol {r.protocol}"
    )
    aim = (
        ""
        if r.target is None
        else f", {'only' if r.aimed else 'driven at'} target {str(r.target).replace('_', ' ')}"
    )
    return f"{NORMS[r.norm]}, {protocol}{aim}"


@dataclass(frozen=True)
class RobustnessSection:
    """What the page shows of one threat. `rows` are (recipe, clean, one estimate for each of
    `radii`, n, seeds)."""

    threat: ThreatTable
    charts: Charts
    radii: Sequence[float]
    rows: Sequence[tuple[VariantRuns, Estimate | None, Sequence[Estimate | None], Sequence[int], int]]
    note: str
    breaking: Breaking | None
    alone: AloneTable | None


def robustness_sections(study: StudyFolder) -> list[RobustnessSection]:
    found = []
    for threat in threats(study):
        radii = shown_radii(threat.radii)
        rows = [
            (m.recipe, m.at(0.0), [m.at(eps) for eps in radii], m.n, len(m.seeds)) for m in threat.members
        ]
        curves = [_curve(member, threat.radii) for member in threat.members]
        shared = len(curves) >= SHARED_LEGEND
        charts = (
            [robust_chart(curves, threat.norm, f"Robust accuracy, {threat.title}", with_legend=not shared)]
            if radii
            else []
        )
        alone = _alone(threat)
        if alone:
            charts.append(
                robust_chart(alone.lines, threat.norm, "Each attack by itself, as it returned its images")
            )
        note = footnote(e for _, clean, estimates, _, _ in rows for e in (clean, *estimates))
        together = Charts(charts, legend(curves) if shared else None)
        found.append(RobustnessSection(threat, together, radii, rows, note, breaking(threat.members), alone))
    return found


def shown_radii(radii: Sequence[float]) -> list[float]:
    """All of a few radii; of more the first, the last and four evenly between."""
    if len(radii) <= COLUMNS:
        return list(radii)
    return [radii[round(k * (len(radii) - 1) / (COLUMNS - 1))] for k in range(COLUMNS)]


def _curve(member: Member, radii: Sequence[float]) -> Series:
    found = [(eps, e) for eps in (0.0, *radii) if (e := member.at(eps)) and math.isfinite(e.value)]
    return series(member.recipe.name, found, member.recipe.place)


def series(name: str, estimates: Sequence[tuple[float, Estimate]], place: int) -> Series:
    """Percentages with their intervals as a band."""
    band = [
        (x, 100 * e.low, 100 * e.high) for x, e in estimates if math.isfinite(e.low) and math.isfinite(e.high)
    ]
    return Series(name, [(x, 100 * e.value) for x, e in estimates], place, band)


def robust_chart(drawn: Sequence[Series], norm: str, title: str, *, with_legend: bool = True) -> Markup:
    reach = max((x for each in drawn for x, _ in each.points), default=1.0)
    label = f"radius in {NORMS[norm]}, pixels from 0 to 1"
    axes = (linear_axis([0, reach]), PERCENT)
    return line_chart(
        drawn, title=title, x_label=label, y_label="right, %", axes=axes, with_legend=with_legend
    )


@dataclass(frozen=True)
class AloneTable:
    """Every attack by itself: `rows` are (recipe, attack, one estimate for each of `radii`),
    `rows5` the same of the true class among the first five; where the attacks have radii of their
    own, `long` instead: (recipe, attack, radius, accuracy, top-5). `told` is what is odd about
    them."""

    lines: Sequence[Series]
    radii: Sequence[float]
    rows: Sequence[tuple[str, str, Sequence[Estimate | None]]]
    rows5: Sequence[tuple[str, str, Sequence[Estimate | None]]]
    long: Sequence[tuple[str, str, float, Estimate, Estimate | None]]
    told: Sequence[str]
    more: int
    note: str

    @property
    def top5(self) -> bool:
        return any(five for *_, five in self.long)


def _alone(threat: ThreatTable) -> AloneTable | None:
    labels = list(dict.fromkeys(a.label for m in threat.members for each in m.seeds for a in each.by_itself))
    if not labels:
        return None
    lines: list[Series] = []
    found: list[tuple[str, str, dict[float, Estimate], dict[float, Estimate]]] = []
    for member in threat.members:
        for dash, label in enumerate(labels):
            rows = [
                row for each in member.seeds for a in each.by_itself if a.label == label for row in a.rows
            ]
            right, five = _by_eps(rows, lambda row: row.accuracy), _by_eps(rows, lambda row: row.top5)
            if right:
                found.append((member.recipe.name, label, right, five))
                lines.append(
                    series(
                        f"{member.recipe.name} · {label}",
                        list(right.items()),
                        place_of(member.recipe.place, dash),
                    )
                )
    radii = {tuple(eps for eps in right if eps > 0) for _, _, right, _ in found}
    alike = len(radii) <= 1
    columns = shown_radii(next(iter(radii), ())) if alike else []
    table = (
        [(name, label, [right.get(eps) for eps in columns]) for name, label, right, _ in found]
        if alike
        else []
    )
    table5 = (
        [(name, label, [five.get(eps) for eps in columns]) for name, label, _, five in found if five]
        if alike
        else []
    )
    long = (
        []
        if alike
        else [
            (name, label, eps, e, five.get(eps))
            for name, label, right, five in found
            for eps, e in right.items()
        ]
    )
    told = [said for member in threat.members for said in _oddities(member)]
    note = footnote(e for _, _, right, _ in found for e in right.values())
    return AloneTable(
        lines, columns, table, table5, long, told[:SENTENCES], max(0, len(told) - SENTENCES), note
    )


def _by_eps(rows: Sequence[AloneRow], of: Callable[[AloneRow], Estimate | None]) -> dict[float, Estimate]:
    """The radii in their order, each with its figure over the seeds."""
    together: dict[float, list[Estimate]] = {}
    for row in rows:
        if (estimate := of(row)) and math.isfinite(estimate.value):
            together.setdefault(float(f"{row.eps:.9g}"), []).append(estimate)
    return {eps: e for eps, found in sorted(together.items()) if (e := over_seeds(found, bounded=True))}


def _oddities(member: Member) -> Iterator[str]:
    for k, each in enumerate(member.seeds):
        yield from oddities(
            member.recipe.name + (f" (seed {k + 1} of {len(member.seeds)})" if len(member.seeds) > 1 else ""),
            each,
        )


def oddities(who: str, robust: Robust) -> Iterator[str]:
    """What the figures of a result's attacks by themselves say against them."""
    for alone in robust.by_itself:
        where = f"{alone.label} on {who}"
        if outside := [row for row in alone.rows if row.outside]:
            worst = max(outside, key=lambda row: row.outside)
            said = f"{where} returned images outside the ball or the box: {worst.outside} at radius {radius(worst.eps)}"
            yield f"{said}, where it would be {percent(worst.valid)} % without them" if worst.valid else said
        if silent := sum(row.silent for row in alone.rows):
            yield f"{where} passed over {silent} adversarial image{'s' if silent > 1 else ''} on its way and returned others"
        yield from _rises(where, alone)
        yield from _above_one_step(who, alone, robust.by_itself)


def _rises(where: str, alone: Alone) -> Iterator[str]:
    rows = sorted(alone.rows, key=lambda row: row.eps)
    rises = [
        (a, b)
        for a, b in pairwise(rows)
        if b.accuracy.value * b.accuracy.n > a.accuracy.value * a.accuracy.n + 1.5
    ]
    if rises:
        a, b = max(rises, key=lambda pair: pair[1].accuracy.value - pair[0].accuracy.value)
        figures = f"{100 * a.accuracy.value:.1f} % at {radius(a.eps)}, {100 * b.accuracy.value:.1f} % at {radius(b.eps)}"
        yield f"{where} breaks fewer images at a larger radius: right are {figures}"


def _above_one_step(who: str, alone: Alone, others: Sequence[Alone]) -> Iterator[str]:
    if alone.name in ONE_STEP or alone.name == "noise" or alone.target is not None:
        return  # driven at a target, an attack gives up the classes that are nearest
    for other in others:
        if other.name in ONE_STEP:
            at = {row.eps: row.accuracy for row in other.rows}
            worse = [
                (row, at[row.eps])
                for row in alone.rows
                if row.eps in at and _images_above(row.accuracy, at[row.eps]) > 1.5
            ]
            if worse:
                row, step = max(worse, key=lambda pair: pair[0].accuracy.value - pair[1].value)
                figures = f"right are {100 * row.accuracy.value:.1f} % against {100 * step.value:.1f} % at radius {radius(row.eps)}"
                yield f"{alone.label} breaks fewer images of {who} than the single step of {other.label}: {figures}"


def _images_above(a: Estimate, b: Estimate) -> float:
    return a.value * a.n - b.value * b.n


@dataclass(frozen=True)
class Breaking:
    """What broke the images: columns are the attempts in order; a row has (name, images, wrong
    unattacked, broken by each, survivors, median and quartiles of the iterates seen up to the
    break, median radius)."""

    attempts: Sequence[str]
    rows: Sequence[tuple[str, int, int, Sequence[int], int, str, str]]


def breaking(members: Sequence[Member]) -> Breaking | None:
    """Counts over all seeds that have their arrays."""
    attempts = list(
        dict.fromkeys(
            str(name) for m in members for each in m.seeds if each.arrays for name in each.arrays["names"]
        )
    )
    rows = []
    for member in members:
        seeds = [each.arrays for each in member.seeds if each.arrays is not None]
        if not seeds:
            continue
        smallest, steps = (np.concatenate([a[key] for a in seeds]) for key in ("smallest", "steps"))
        by = np.concatenate(
            [np.append(a["names"].astype(str), "")[a["by"]] for a in seeds]
        )  # place -1 is the last, none
        broken = (smallest > 0) & np.isfinite(smallest)
        counts = [int(((by == name) & broken).sum()) for name in attempts]
        right = smallest[smallest > 0]
        half = np.sort(right)[(len(right) - 1) // 2] if len(right) else math.nan
        needed = "–" if math.isnan(half) else radius(float(half)) if math.isfinite(half) else "above all"
        wrong, survivors = int((smallest == 0).sum()), int(np.isinf(smallest).sum())
        rows.append(
            (member.recipe.name, len(smallest), wrong, counts, survivors, _quartiles(steps[broken]), needed)
        )
    return Breaking(attempts, rows) if rows else None


def _quartiles(steps: np.ndarray) -> str:
    if not len(steps):
        return "–"
    low, middle, high = np.quantile(steps, [0.25, 0.5, 0.75], method="nearest")
    return f"{middle} ({low} to {high})"


RANK = {("sign", "serious"): 0, ("sign", "minor"): 1, ("sign", "none"): 2, ("not checked", "none"): 3}


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
    signs: dict[Finding, tuple[Finding, dict[str, list[Run]]]] = {}
    for recipe in study.recipes:
        for run in recipe.finished:
            for finding in audit_findings(run):
                together.setdefault(finding.audit, {}).setdefault(recipe.name, []).append(finding)
                if finding.status == "sign":
                    signs.setdefault(finding, (finding, {}))[1].setdefault(recipe.name, []).append(run)
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
    ordered = sorted(signs.values(), key=lambda pair: RANK.get((pair[0].status, pair[0].severity), 4))
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
        worst = min(signs, key=lambda finding: RANK.get((finding.status, finding.severity), 4))
        return worst.severity, f"sign{many}"
    unchecked = [finding for finding in found if finding.status == "not checked"]
    return ("unchecked", "not checked") if unchecked else ("clean", "no sign")


def damaged(study: StudyFolder) -> list[str]:
    """Files of attacks, corruptions and certificates that could not be read, and why."""
    return [f"{run.name}/seed-{run.seed}/{said}" for run in study.runs for said in run.stress.damaged]


def audit_findings(run: Run) -> list[Finding]:
    """Of all results of a run, the serious first; the same finding once."""
    found = dict.fromkeys(f for robust in run.stress.robust for f in robust.result.findings)
    return sorted(found, key=lambda f: RANK.get((f.status, f.severity), 4))
