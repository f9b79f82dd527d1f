"""What the comparison says: verdicts in words, contrasts, costs, and every pair in a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stresslens.comparison.schema import (
    CONTRAST_COLUMNS,
    Contrast,
    ContrastColumn,
    CostRatio,
    JudgedClaim,
    RobustContrast,
)
from stresslens.report.curve_colours import INK
from stresslens.report.dot_charts import Interval, interval_chart
from stresslens.report.format import p_value, points, signed
from stresslens.report.load import StudyFolder
from stresslens.report.summary import headline, scored

SENTENCES = 24
"""Verdicts that are said at the head of the page; each contrast says three at least."""
ROWS = 600
PAIRS, CLASSES = 12, 20
"""Contrasts that say where each errs, and the classes they say it of."""
SPELLED_OUT = 8
"""Recipes up to which a matrix has room for intervals."""


@dataclass(frozen=True)
class Verdict:
    sentence: str
    real: bool
    plan: str


@dataclass(frozen=True)
class Question:
    """What one contrast asks: how many of its pairs really differ, and verdicts, these first, as
    far as there is room.

    `claim` is what somebody concluded from it, and what is found of that.
    """

    name: str
    verdicts: Sequence[Verdict]
    real: int
    pairs: int
    claim: JudgedClaim | None = None
    section: str = "contrasts"
    """Where the page has the rest."""


def opening(study: StudyFolder) -> list[str]:
    """What the comparison says besides its contrasts; without any, what a few runs score, and that
    no comparison was made."""
    if study.comparison and study.comparison.verdicts:
        of_contrasts = {c.verdict for c in study.comparison.contrasts}
        rest = [sentence for sentence in study.comparison.verdicts if sentence not in of_contrasts]
        names = tuple(recipe.name for recipe in study.recipes if recipe.name)
        return [each if each.startswith(names) else each[:1].upper() + each[1:] for each in rest]
    said = []
    recipes = headline(study)
    for recipe in recipes[:4]:
        said += scored(
            recipe.name,
            study.split,
            *(recipe.score(study.split, name) for name in ("accuracy", "majority_baseline")),
        )
    if len(recipes) > 1:
        said.append(
            "No comparison has been made between these runs: overlapping intervals do not say whether they differ."
        )
    if not recipes:
        said.append("No run has finished yet.")
    return said


def questions(study: StudyFolder) -> list[Question]:
    """The contrasts by name; those with a real difference first."""
    together: dict[tuple[str, str], list[Contrast]] = {}
    if study.comparison:
        for contrast in study.comparison.contrasts:
            together.setdefault(("contrasts", contrast.contrast), []).append(contrast)
        for robust in study.comparison.robustness:
            if isinstance(robust, RobustContrast):
                together.setdefault(("robustness", robust.contrast), []).append(robust)
    room = max(3, SENTENCES // max(1, len(together)))
    found = []
    for (section, name), contrasts in together.items():
        ordered = sorted(contrasts, key=lambda c: not c.real)
        said = [Verdict(c.verdict, c.real, "" if c.real else c.plan or "") for c in ordered[:room]]
        claims = study.comparison.claims if study.comparison and section == "contrasts" else []
        claim = next((each for each in claims if each.contrast == name), None)
        title = name if section == "contrasts" else f"{name}: robustness"
        found.append(Question(title, said, sum(c.real for c in contrasts), len(contrasts), claim, section))
    return sorted(found, key=lambda question: not question.real)


def contrast_rows(study: StudyFolder) -> tuple[list[Contrast], int]:
    """The contrasts in their own order, and how many were left out; beyond the budget the real and
    the likeliest stay."""
    contrasts = study.comparison.contrasts if study.comparison else []
    if len(contrasts) <= ROWS:
        return contrasts, 0
    ranked = sorted(contrasts, key=lambda c: (not c.real, c.p if c.p is not None else 1.0))
    return ranked[:ROWS], len(contrasts) - ROWS


def contrast_columns(rows: Sequence[Contrast]) -> list[ContrastColumn]:
    """Those of the table: what the interval is over only where the rows differ in it."""
    units = {row.difference.unit for row in rows}
    return [column for column in CONTRAST_COLUMNS if column.written != "unit" or len(units) > 1]


def contrasts_chart(study: StudyFolder) -> Markup | None:
    contrasts = study.comparison.contrasts if study.comparison else []
    if not 1 < len(contrasts) <= 60:
        return None
    rows = [
        Interval(
            f"{c.b} − {c.a}",
            100 * c.difference.value,
            100 * c.difference.low,
            100 * c.difference.high,
            INK,
            points(c.difference).split(" ")[0],
        )
        for c in contrasts
    ]
    said = "Differences, with their intervals"
    return interval_chart(
        rows, title=said, x_label="percentage points", reference=(0.0, "no difference"), label=44
    )


def cost_rows(study: StudyFolder) -> tuple[list[CostRatio], int]:
    costs = study.comparison.costs if study.comparison else []
    ranked = sorted(costs, key=lambda c: not c.real) if len(costs) > ROWS else costs
    return ranked[:ROWS], max(0, len(costs) - ROWS)


@dataclass(frozen=True)
class Erring:
    """Where a pair errs: a row for each class with its images and those that only a, only b and
    both have wrong; and all summed."""

    contrast: str
    a: str
    b: str
    seeds: int
    rows: Sequence[tuple[str, Sequence[int]]]
    all: Sequence[int]
    left_out: int


def errors(study: StudyFolder) -> list[Erring]:
    """One for each contrast of up to `PAIRS`; of many classes those that the two differ on most."""
    found = study.comparison.errors[:PAIRS] if study.comparison else []
    names = next((run.classes for run in study.runs if run.classes), [])
    tables = []
    for pair in found:
        counts = list(zip(pair.images, pair.only_a, pair.only_b, pair.both))
        if len(counts) > len(names) or not counts:
            continue
        most = sorted(range(len(counts)), key=lambda k: -(counts[k][1] + counts[k][2]))[:CLASSES]
        rows = [(names[k], counts[k]) for k in sorted(most)]
        whole = [sum(column) for column in zip(*counts)]
        tables.append(Erring(pair.contrast, pair.a, pair.b, pair.seeds, rows, whole, len(counts) - len(rows)))
    return tables


@dataclass(frozen=True)
class ContrastCell:
    """Row minus column: what is written, the interval, what hovering says, and "ahead" or "behind"
    where it is real."""

    text: str
    interval: str
    said: str
    kind: str


def matrix(study: StudyFolder) -> tuple[list[str], list[list[ContrastCell | None]]] | None:
    """Names, the best first, and a cell for each pair; None on the diagonal and where a pair was
    not compared."""
    found = study.comparison.matrix if study.comparison else None
    if not found or len(found.recipes) < 2:
        return None
    names = found.recipes
    order = sorted(range(len(names)), key=lambda i: -math.fsum(d or 0.0 for d in found.difference[i]))
    rows: list[list[ContrastCell | None]] = []
    for i in order:
        cells: list[ContrastCell | None] = []
        for j in order:
            value = found.difference[i][j]
            if i == j or value is None:
                cells.append(None)
                continue
            low, high, p = found.low[i][j], found.high[i][j], found.p_holm[i][j]
            interval = f"({signed(low)} to {signed(high)})" if low is not None and high is not None else ""
            kind = ("ahead" if value > 0 else "behind") if found.real[i][j] else ""
            said = f"{names[i]} minus {names[j]}: {signed(value)} {interval}, p {p_value(p)} after Holm"
            cells.append(
                ContrastCell(signed(value), interval if len(names) <= SPELLED_OUT else "", said, kind)
            )
        rows.append(cells)
    return [names[i] for i in order], rows
