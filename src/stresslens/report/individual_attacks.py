"""Individual attacks in a study's page: accuracy at each radius under each attack by itself, and
oddities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stresslens.charts.curve_colours import place_of
from stresslens.charts.direct_labels import MANY
from stresslens.charts.line_charts import Series
from stresslens.core.format import footnote, percent, radius
from stresslens.core.types import Estimate
from stresslens.metrics.random_effects import over_seeds
from stresslens.report.load import VariantRuns
from stresslens.report.stress import AttackFolder
from stresslens.report.threats import Member, ThreatTable
from stresslens.robustness.result_file import IndividualAttackCurve, IndividualAttackRow
from stresslens.robustness.robust_curves import series, shown_radii

ONE_STEP = ("fgsm",)
RETURNED = "as it returned its images"
UNATTACKED = "no attack"
SENTENCES = 12

Entry = tuple[VariantRuns, str, dict[float, Estimate], dict[float, Estimate]]
"""A variant, an attack, and the accuracy and the top-5 accuracy at each radius."""


@dataclass(frozen=True)
class IndividualAttackTable:
    """Every attack by itself. `rows` are (variant, attack, one estimate for each of `radii`, the
    first of which is 0), `rows5` the same for top-5 accuracy. If the attacks have different radii,
    `long` is used instead: (variant, attack, radius, accuracy, top-5), with a row for each variant
    without attack. `warnings` are sentences on oddities in the results. `overlays` are the lines of
    each chart, with its title."""

    overlays: Sequence[tuple[str, Sequence[Series]]]
    radii: Sequence[float]
    rows: Sequence[tuple[str, str, Sequence[Estimate | None]]]
    rows5: Sequence[tuple[str, str, Sequence[Estimate | None]]]
    long: Sequence[tuple[str, str, float, Estimate, Estimate | None]]
    warnings: Sequence[str]
    more: int
    note: str

    @property
    def top5(self) -> bool:
        return any(five for *_, five in self.long)


def individual_attack_table(threat: ThreatTable) -> IndividualAttackTable | None:
    labels = list(
        dict.fromkeys(a.label for m in threat.members for each in m.seeds for a in each.individual_attacks)
    )
    if not labels:
        return None
    entries: list[Entry] = []
    for member in threat.members:
        for label in labels:
            rows = [
                row
                for each in member.seeds
                for a in each.individual_attacks
                if a.label == label
                for row in a.rows
            ]
            right, five = _by_eps(rows, lambda row: row.accuracy), _by_eps(rows, lambda row: row.top5)
            if right:
                entries.append((member.variant, label, right, five))
    radii = {tuple(eps for eps in right if eps > 0) for _, _, right, _ in entries}
    clean = {m.variant.name: (m.at(0.0), m.clean_top5) for m in threat.members}
    columns: list[float] = []
    table: list[tuple[str, str, list[Estimate | None]]] = []
    table5: list[tuple[str, str, list[Estimate | None]]] = []
    long: list[tuple[str, str, float, Estimate, Estimate | None]] = []
    if len(radii) <= 1:
        columns = [0.0, *shown_radii(next(iter(radii), ()))]
        for variant, label, right, five in entries:
            name = variant.name
            unattacked, unattacked5 = clean[name]
            table.append((name, label, [right.get(eps, None if eps else unattacked) for eps in columns]))
            if five:
                table5.append((name, label, [five.get(eps, None if eps else unattacked5) for eps in columns]))
    else:
        long = _long_rows(entries, clean)
    sentences = [sentence for member in threat.members for sentence in _oddities(member)]
    note = footnote(e for _, _, right, _ in entries for e in right.values())
    return IndividualAttackTable(
        _overlays(labels, entries),
        columns,
        table,
        table5,
        long,
        sentences[:SENTENCES],
        max(0, len(sentences) - SENTENCES),
        note,
    )


def _overlays(labels: Sequence[str], entries: Sequence[Entry]) -> list[tuple[str, Sequence[Series]]]:
    """All lines in one chart with a dash for each attack, or, if they are many, a chart for each
    attack."""
    if len(entries) <= MANY:
        lines = [
            series(
                f"{variant.name} · {label}",
                list(right.items()),
                place_of(variant.place, labels.index(label)),
            )
            for variant, label, right, _ in entries
        ]
        return [(f"Each attack by itself, {RETURNED}", lines)]
    return [
        (
            f"{label} by itself, {RETURNED}",
            [
                series(variant.name, list(right.items()), variant.place)
                for variant, other, right, _ in entries
                if other == label
            ],
        )
        for label in labels
    ]


def _long_rows(
    entries: Sequence[Entry], clean: Mapping[str, tuple[Estimate | None, Estimate | None]]
) -> list[tuple[str, str, float, Estimate, Estimate | None]]:
    """A row for each variant without attack, and behind it one for each attack and radius."""
    rows: list[tuple[str, str, float, Estimate, Estimate | None]] = []
    for variant, (accuracy, top5) in clean.items():
        own = [entry for entry in entries if entry[0].name == variant]
        if own and accuracy:
            rows.append((variant, UNATTACKED, 0.0, accuracy, top5))
        for _, label, right, five in own:
            rows += [(variant, label, eps, estimate, five.get(eps)) for eps, estimate in right.items()]
    return rows


def _by_eps(
    rows: Sequence[IndividualAttackRow], of: Callable[[IndividualAttackRow], Estimate | None]
) -> dict[float, Estimate]:
    """The radii in order, each with its estimate over the seeds."""
    by_radius: dict[float, list[Estimate]] = {}
    for row in rows:
        if (estimate := of(row)) and math.isfinite(estimate.value):
            by_radius.setdefault(float(f"{row.eps:.9g}"), []).append(estimate)
    return {
        eps: e for eps, estimates in sorted(by_radius.items()) if (e := over_seeds(estimates, bounded=True))
    }


def _oddities(member: Member) -> Iterator[str]:
    for k, each in enumerate(member.seeds):
        yield from oddities(
            member.variant.name
            + (f" (seed {k + 1} of {len(member.seeds)})" if len(member.seeds) > 1 else ""),
            each,
        )


def oddities(who: str, robust: AttackFolder) -> Iterator[str]:
    """Sentences on results of individual attacks that suggest a faulty attack."""
    for attack in robust.individual_attacks:
        where = f"{attack.label} on {who}"
        if outside := [row for row in attack.rows if row.outside]:
            worst = max(outside, key=lambda row: row.outside)
            sentence = (
                f"{where} returned images outside the ball or the box: "
                f"{worst.outside} at radius {radius(worst.eps)}"
            )
            without = f"; without them, accuracy is {percent(worst.valid)} %" if worst.valid else ""
            yield sentence + without
        if silent := sum(row.silent for row in attack.rows):
            plural = "s" if silent > 1 else ""
            yield f"{where} found {silent} adversarial image{plural} but returned others"
        yield from _rises(where, attack)
        yield from _above_one_step(who, attack, robust.individual_attacks)


def _rises(where: str, attack: IndividualAttackCurve) -> Iterator[str]:
    rows = sorted(attack.rows, key=lambda row: row.eps)
    rises = [
        (a, b)
        for a, b in pairwise(rows)
        if b.accuracy.value * b.accuracy.n > a.accuracy.value * a.accuracy.n + 1.5
    ]
    if rises:
        a, b = max(rises, key=lambda pair: pair[1].accuracy.value - pair[0].accuracy.value)
        figures = ", ".join(f"{100 * row.accuracy.value:.1f} % at {radius(row.eps)}" for row in (a, b))
        yield f"{where} breaks fewer images at a larger radius: accuracy is {figures}"


def _above_one_step(
    who: str, attack: IndividualAttackCurve, others: Sequence[IndividualAttackCurve]
) -> Iterator[str]:
    if attack.plugin in ONE_STEP or attack.plugin == "noise" or attack.target is not None:
        return  # a targeted attack does not use the nearest classes
    for other in others:
        if other.plugin in ONE_STEP:
            at = {row.eps: row.accuracy for row in other.rows}
            worse = [
                (row, at[row.eps])
                for row in attack.rows
                if row.eps in at and _images_above(row.accuracy, at[row.eps]) > 1.5
            ]
            if worse:
                row, step = max(worse, key=lambda pair: pair[0].accuracy.value - pair[1].value)
                yield (
                    f"{attack.label} breaks fewer images of {who} than the single step of {other.label}: "
                    f"accuracy is {100 * row.accuracy.value:.1f} % against {100 * step.value:.1f} % "
                    f"at radius {radius(row.eps)}"
                )


def _images_above(a: Estimate, b: Estimate) -> float:
    return a.value * a.n - b.value * b.n
