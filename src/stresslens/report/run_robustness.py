"""Robustness in a run's page: its curves, the minimal radii and the iterations of its images, and
adversarial examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from markupsafe import Markup

from stresslens.charts.chart import Chart
from stresslens.comparison.robustness import attack_family
from stresslens.core.ball import ABSOLUTE, RELATIVE, SAME
from stresslens.core.format import count, footnote, radius
from stresslens.core.text import NOT_FINITE
from stresslens.core.types import Arrays, Estimate
from stresslens.report.gallery import Sheet, class_name, read_sheet
from stresslens.report.individual_attacks import oddities
from stresslens.report.load import Run
from stresslens.report.stress import AttackFolder
from stresslens.report.threats import title_of
from stresslens.robustness.example_file import AdversarialExample
from stresslens.robustness.result_file import ResultFile
from stresslens.robustness.robust_curves import QueryTable, query_tables, result_chart, worst_case

BYTES = 450_000
"""Largest size of all sheets of attacked images of a page, as text."""
FIRST_SHEET = 100
"""The numbers of these sheets begin here; those of the gallery are below."""
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Upper ends of the bins of iterations."""


@dataclass(frozen=True)
class ShownAttack:
    """An image before and after the attack: `original`, `change` and `adversarial` show their parts
    of the sheet."""

    original: Markup
    change: Markup
    adversarial: Markup
    truth: str
    before: str
    before_right: bool
    after: str
    scale: str
    eps: float
    facts: str
    what: str


@dataclass(frozen=True)
class AdversarialGroups:
    """`groups` are (heading, images); `ladders` are one image each, attacked at several radii;
    `left_out` could not be shown."""

    sheets: Sequence[Markup]
    groups: Sequence[tuple[str, Sequence[ShownAttack]]]
    ladders: Sequence[tuple[str, Sequence[ShownAttack]]]
    reduced: bool
    left_out: int


@dataclass(frozen=True)
class Bar:
    """A row of a distribution: its name, its count, the share of the largest row, and the counts by
    attempt."""

    what: str
    n: int
    share: float
    parts: Sequence[int] = ()
    estimate: Estimate | None = None


@dataclass(frozen=True)
class RunRobustnessSection:
    title: str
    result: ResultFile
    charts: Sequence[Chart]
    radii: Sequence[Bar]
    attempts: Sequence[str]
    survivors: int | None
    steps: Sequence[Bar]
    note: str
    warnings: Sequence[str]
    cost: str
    queries: Sequence[QueryTable]
    pictures: AdversarialGroups | None


def run_robustness_sections(run: Run) -> list[RunRobustnessSection]:
    """One section for each attack result."""
    sections, room, place = [], BYTES, FIRST_SHEET
    for robust in sorted(run.stress.robust, key=lambda robust: attack_family(robust.result)):
        pictures, used = _pictures(run, robust, place, room)
        room, place = room - used, place + (len(pictures.sheets) if pictures else 0)
        sections.append(_section(run, robust, pictures))
    return sections


def _section(run: Run, robust: AttackFolder, pictures: AdversarialGroups | None) -> RunRobustnessSection:
    result, arrays = robust.result, robust.arrays
    return RunRobustnessSection(
        title_of(robust),
        result,
        [result_chart(result, robust.individual_attacks)],
        _radii(result, arrays),
        robust.attempts,
        int(np.isinf(arrays["smallest"]).sum()) if arrays is not None else None,
        _steps(arrays) if arrays is not None else [],
        footnote(e for _, e in worst_case(result)),
        list(oddities(run.name, robust)),
        _cost(result),
        query_tables(result),
        pictures,
    )


def _radii(result: ResultFile, arrays: Arrays | None) -> list[Bar]:
    """Unattacked first, then every radius with the number of images whose minimal radius it is."""
    rows: list[Bar] = []
    for eps, estimate in worst_case(result):
        here = (
            np.isclose(arrays["smallest"], eps, rtol=SAME, atol=1e-12)
            if arrays is not None
            else np.zeros(0, bool)
        )
        parts = (
            [int((here & (arrays["by"] == k)).sum()) for k in range(len(arrays["names"]))]
            if arrays is not None
            else []
        )
        rows.append(
            Bar(
                radius(eps) if eps else "unattacked",
                int(here.sum()),
                0.0,
                parts if eps else [0] * len(parts),
                estimate,
            )
        )
    return _with_shares(rows)


def _steps(arrays: Arrays) -> list[Bar]:
    """The number of broken images by iterations, in bins from the first to the last with an
    image."""
    broken = (arrays["smallest"] > 0) & np.isfinite(arrays["smallest"])
    steps = arrays["steps"][broken]
    if not len(steps):
        return []
    ends = [*STEPS[: next((k for k, end in enumerate(STEPS) if end >= steps.max()), len(STEPS)) + 1]]
    rows = [Bar("1", int((steps <= 1).sum()), 0.0)]
    for low, high in pairwise(ends):
        written = f"{count(low + 1)} to {count(high)}" if low + 1 < high else count(high)
        rows.append(Bar(written, int(((steps > low) & (steps <= high)).sum()), 0.0))
    if steps.max() > STEPS[-1]:
        rows.append(Bar(f"above {count(STEPS[-1])}", int((steps > STEPS[-1]).sum()), 0.0))
    return _with_shares(rows)


def _with_shares(rows: Sequence[Bar]) -> list[Bar]:
    most = max(1, *(row.n for row in rows))
    return [Bar(row.what, row.n, row.n / most, row.parts, row.estimate) for row in rows]


def _cost(result: ResultFile) -> str:
    cost = result.cost
    parts = []
    if cost.forwards is not None and cost.gradients is not None:
        parts.append(f"{count(cost.forwards)} images forward and {count(cost.gradients)} gradients")
    if cost.seconds is not None:
        parts.append(f"{cost.seconds:.1f} s" if cost.seconds < 100 else f"{cost.seconds:.0f} s")
    if cost.audit_seconds:
        parts.append(f"{cost.audit_seconds:.1f} s for the audits")
    return ", ".join(parts)


def _pictures(run: Run, robust: AttackFolder, place: int, room: int) -> tuple[AdversarialGroups | None, int]:
    """The adversarial examples of a result, and the bytes of the page they take."""
    sheets: dict[str, Sheet | None] = {}
    used = left_out = 0
    shown: list[tuple[AdversarialExample, ShownAttack]] = []
    for example in robust.examples:
        if example.file not in sheets:
            fresh = read_sheet(robust.folder / "examples", example.file, place + len(sheets), room - used)
            sheets[example.file] = fresh
            used += len(fresh.uri) if fresh else 0
        sheet = sheets[example.file]
        if sheet is None:
            left_out += 1
        else:
            shown.append((example, _attacked(run, robust.result, example, sheet)))
    if not shown and not left_out:
        return None, 0
    split = robust.result.split
    groups = [
        (
            f"The first images of the {split} split that were broken",
            [made for each, made in shown if each.kind == "first"],
        ),
        (
            "Further images, from the smallest radius needed to the largest",
            [made for each, made in shown if each.kind == "spread"],
        ),
    ]
    ladders = []
    of_ladders = sorted(
        (pair for pair in shown if pair[0].kind == "ladder"),
        key=lambda p: (p[0].index or 0, p[0].attack, p[0].eps),
    )
    for (index, attack), members in groupby(of_ladders, key=lambda pair: (pair[0].index, pair[0].attack)):
        which = (
            f"The first image of the {split} split" if index == 0 else f"Image {index} of the {split} split"
        )
        ladders.append(
            (f"{which} at each radius{', ' + attack if attack else ''}", [made for _, made in members])
        )
    rules = [sheet.rule for sheet in sheets.values() if sheet]
    reduced = any(example.reduced for example, _ in shown)
    return AdversarialGroups(rules, [group for group in groups if group[1]], ladders, reduced, left_out), used


def _size(example: AdversarialExample) -> str:
    """The size of a perturbation, if it is not close to the radius or is beyond it."""
    if example.size is None:
        return ""
    if example.size > example.eps * (1 + RELATIVE) + ABSOLUTE:
        return f"size {example.size:.4g}, outside the ball"
    return "" if math.isclose(example.size, example.eps, rel_tol=0.02) else f"size {example.size:.3g}"


def _attacked(run: Run, result: ResultFile, example: AdversarialExample, sheet: Sheet) -> ShownAttack:
    steps = f"{count(example.steps)} iterate{'' if example.steps == 1 else 's'}" if example.steps else ""
    named = (
        [example.attack, f"image {example.index}" if example.index is not None else ""]
        if example.kind != "ladder"
        else []
    )
    facts = [_size(example), steps, *named]  # the heading of a ladder has the names
    truth, before, after = (
        class_name(run, k) for k in (example.truth, example.clean_prediction, example.prediction)
    )
    return ShownAttack(
        sheet.style(example.original),
        sheet.style(example.change),
        sheet.style(example.adversarial),
        truth,
        before if before == NOT_FINITE else f"{before} ({100 * example.clean_confidence:.0f} %)",
        example.clean_prediction == example.truth,
        after if after == NOT_FINITE else f"{after} ({100 * example.confidence:.0f} %)",
        f"{example.scale:g}",
        example.eps,
        " · ".join(filter(None, facts)),
        f"{truth}, predicted {before}; attacked within {radius(example.eps)}: {after}",
    )
