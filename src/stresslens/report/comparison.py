"""Verdicts, contrasts, costs and the matrix of all pairs, for a study's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stresslens.charts.chart import Chart
from stresslens.charts.curve_colours import INK
from stresslens.charts.dot_charts import Interval, interval_chart
from stresslens.comparison.data_sets import PairAcrossSets
from stresslens.comparison.margins import in_points
from stresslens.comparison.schema import (
    CONTRAST_COLUMNS,
    Contrast,
    ContrastColumn,
    CostRatio,
    JudgedClaim,
    RobustContrast,
)
from stresslens.config.ablation import OWN_CONTRASTS
from stresslens.core.format import p_value, points, points_ends, signed, signed_number
from stresslens.metrics.measures import Measure, measure_of
from stresslens.report.load import StudyFolder
from stresslens.report.summary import headline, scored
from stresslens.report.sweeps import chosen_settings

SENTENCES = 24
"""Verdicts at the head of the page; each contrast shows at least three."""
SWEEPS = 6
"""Sweeps whose choice is told at the head of the page."""
ROWS = 600
PAIRS, CLASSES = 12, 20
"""Contrasts with a table of errors by class, and the classes in each table."""
SPELLED_OUT = 8
"""Up to this number of variants, a matrix has room for intervals."""


@dataclass(frozen=True)
class Verdict:
    sentence: str
    real: bool
    plan: str


@dataclass(frozen=True)
class Question:
    """One contrast: how many of its pairs really differ, and as many verdicts as there is room for,
    the real ones first.

    `claim` is a claim of the study file about it, and what was found.
    """

    name: str
    verdicts: Sequence[Verdict]
    real: int
    pairs: int
    untested: int
    """The pairs that too few seeds leave untested."""
    shown: int
    """The pairs whose verdicts there is room for."""
    claim: JudgedClaim | None = None
    section: str = "contrasts"
    """The page's section with the other verdicts."""


def opening(study: StudyFolder) -> list[str]:
    """The sentences of the comparison that are not about a contrast. Without a comparison: the
    accuracy of up to four variants, and that no comparison was made."""
    if study.comparison and study.comparison.verdicts:
        of_contrasts = {c.verdict for c in study.comparison.contrasts}
        rest = [sentence for sentence in study.comparison.verdicts if sentence not in of_contrasts]
        names = (*(variant.name for variant in study.variants if variant.name), *_data_names(study))
        best = [study.comparison.best.said] if study.comparison.best else []
        rest = [*chosen_settings(study)[:SWEEPS], *rest, *best]
        return [each if each.startswith(names) else each[:1].upper() + each[1:] for each in rest]
    sentences = []
    variants = headline(study)
    for variant in variants[:4]:
        sentences += scored(
            variant.name,
            study.split,
            *(variant.score(study.split, name) for name in ("accuracy", "majority_baseline")),
        )
    if len(variants) > 1:
        sentences.append(
            "No comparison has been made between these variants: overlapping intervals do not say "
            "whether they differ."
        )
    if not variants:
        sentences.append("No run has finished yet.")
    return sentences


def _data_names(study: StudyFolder) -> set[str]:
    return {run.record.data.name for run in study.runs if run.record.data.name}


def questions(study: StudyFolder) -> list[Question]:
    """The contrasts by name; those with a real difference first. Those of an ablation are in its table."""
    by_contrast: dict[tuple[str, str], list[Contrast]] = {}
    if study.comparison:
        in_table = OWN_CONTRASTS if study.comparison.ablation else ()
        for contrast in study.comparison.contrasts:
            if contrast.contrast not in in_table:
                by_contrast.setdefault(("contrasts", contrast.contrast), []).append(contrast)
        for robust in study.comparison.robustness:
            if isinstance(robust, RobustContrast) and robust.contrast not in in_table:
                by_contrast.setdefault(("robustness", robust.contrast), []).append(robust)
    room = max(3, SENTENCES // max(1, len(by_contrast)))
    all_questions = []
    for (section, name), contrasts in by_contrast.items():
        ordered = sorted(contrasts, key=lambda c: not c.real)
        verdicts = [each for contrast in ordered[:room] for each in _verdicts(contrast)]
        claims = study.comparison.claims if study.comparison else []
        of = ("robustness",) if section == "robustness" else ("accuracy", "sameness")
        claim = next((each for each in claims if each.contrast == name and each.of in of), None)
        title = name if section == "contrasts" else f"{name}: robustness"
        all_questions.append(
            Question(
                title,
                verdicts,
                sum(c.real for c in contrasts),
                len(contrasts),
                sum(c.too_few_seeds and not c.real for c in contrasts),
                min(room, len(contrasts)),
                claim,
                section,
            )
        )
    return sorted(all_questions, key=lambda question: not question.real)


def _verdicts(contrast: Contrast) -> list[Verdict]:
    """What is said of a contrast: whether it is real, and what its margins say."""
    first = Verdict(contrast.verdict, contrast.real, "" if contrast.real else contrast.plan or "")
    return [first, *(Verdict(each.verdict, each.shown, each.plan or "") for each in contrast.of_margins)]


def contrast_rows(study: StudyFolder) -> tuple[Sequence[Contrast], int]:
    """The contrasts in their order, and how many were left out. If there are too many, the real
    ones and those of smallest p stay."""
    return shown_contrasts(study.comparison.contrasts if study.comparison else [])


def shown_contrasts(contrasts: Sequence[Contrast]) -> tuple[Sequence[Contrast], int]:
    """As `contrast_rows`, of any contrasts."""
    if len(contrasts) <= ROWS:
        return contrasts, 0
    ranked = sorted(contrasts, key=lambda c: (not c.real, c.p if c.p is not None else 1.0))
    return ranked[:ROWS], len(contrasts) - ROWS


def contrast_columns(rows: Sequence[Contrast]) -> list[ContrastColumn]:
    """The columns of the table. The unit of the interval and the name of the contrast are shown only if
    the rows differ in them."""
    units = {row.difference.unit for row in rows}
    columns = [column for column in CONTRAST_COLUMNS if column.written != "unit" or len(units) > 1]
    return [column for column in columns if column.field != "contrast"] if one_contrast(rows) else columns


def one_contrast(rows: Sequence[Contrast]) -> str:
    """The name that all rows of the table share; empty if they differ, or for a single row."""
    names = {row.contrast for row in rows}
    return names.pop() if len(rows) > 1 and len(names) == 1 else ""


def contrasts_chart(study: StudyFolder) -> Chart | None:
    contrasts = study.comparison.contrasts if study.comparison else []
    return difference_chart(contrasts) if 1 < len(contrasts) <= 60 else None


def difference_chart(contrasts: Sequence[Contrast]) -> Chart:
    """The difference of each contrast, all by one metric, with its interval; where one margin was asked
    for, this margin, and thick the interval that has to lie inside it."""
    asked = [verdict for c in contrasts for verdict in c.of_margins]
    margins = {verdict.margin for verdict in asked}
    margin = margins.pop() if len(margins) == 1 else None
    measure = measure_of(contrasts[0].metric)
    rows = [_difference_row(c, measure, margin is not None) for c in contrasts]
    caption = "Differences, with their intervals"
    band = None
    if margin is not None:
        one_sided = all(verdict.kind == "not worse" for verdict in asked)
        inside = "right of the margin" if one_sided else "inside the margin"
        caption += f", and the margin of {in_points(margin)} (shaded): what is thick must lie {inside}"
        band = (-100 * margin, 100 * margin, f"within {in_points(margin)}")
    return interval_chart(
        rows,
        title=caption,
        x_label=measure.axis,
        reference=(0.0, "no difference"),
        label=44,
        band=band,
    )


def _difference_row(contrast: Contrast, measure: Measure, thick: bool) -> Interval:
    e, scale = contrast.adjusted or contrast.difference, 100 if measure.is_share else 1
    tested = [verdict.interval for verdict in contrast.of_margins if verdict.interval] if thick else []
    inner = (100 * tested[0].low, 100 * tested[0].high) if tested else (math.nan, math.nan)
    return Interval(
        f"{contrast.b} − {contrast.a}",
        scale * e.value,
        scale * e.low,
        scale * e.high,
        INK,
        signed(e.value) if measure.is_share else signed_number(e.value),
        inner=inner,
    )


def forest_chart(pair: PairAcrossSets) -> Chart:
    """The difference on each data set, the average over them, and that on a new one; open circles are the
    estimates together with the other data sets."""
    rows = [
        Interval(
            each.data_set,
            100 * each.difference.value,
            100 * each.difference.low,
            100 * each.difference.high,
            INK,
            points(each.difference),
            math.nan if each.shrunken is None else 100 * each.shrunken,
        )
        for each in pair.sets
    ]
    if pair.average is not None and pair.new is not None:
        e, new = pair.average, pair.new
        rows.append(Interval("average", 100 * e.value, 100 * e.low, 100 * e.high, 0, points(e)))
        rows.append(Interval("a new data set", math.nan, 100 * new.low, 100 * new.high, 0, points_ends(new)))
    return interval_chart(
        rows,
        title=f"{pair.b} minus {pair.a}, by data set",
        x_label="percentage points",
        reference=(0.0, "no difference"),
        label=44,
    )


def cost_rows(study: StudyFolder) -> tuple[list[CostRatio], int]:
    costs = study.comparison.costs if study.comparison else []
    ranked = sorted(costs, key=lambda c: not c.real) if len(costs) > ROWS else costs
    return ranked[:ROWS], max(0, len(costs) - ROWS)


@dataclass(frozen=True)
class ErrorsTable:
    """Errors by class of a pair: a row for each class with its images and those that only a, only b
    and both get wrong; and the sums."""

    contrast: str
    a: str
    b: str
    seeds: int
    rows: Sequence[tuple[str, Sequence[int]]]
    all: Sequence[int]
    left_out: int


def errors(study: StudyFolder) -> list[ErrorsTable]:
    """A table for each of the first `PAIRS` contrasts. With many classes, those that the two differ
    on most."""
    pairs = study.comparison.errors[:PAIRS] if study.comparison else []
    names = next((run.classes for run in study.runs if run.classes), [])
    tables = []
    for pair in pairs:
        counts = list(zip(pair.images, pair.only_a, pair.only_b, pair.both))
        if len(counts) > len(names) or not counts:
            continue
        most = sorted(range(len(counts)), key=lambda k: -(counts[k][1] + counts[k][2]))[:CLASSES]
        rows = [(names[k], counts[k]) for k in sorted(most)]
        whole = [sum(column) for column in zip(*counts)]
        tables.append(
            ErrorsTable(pair.contrast, pair.a, pair.b, pair.seeds, rows, whole, len(counts) - len(rows))
        )
    return tables


@dataclass(frozen=True)
class ContrastCell:
    """Row minus column: the text, the interval, the tooltip (`said`), and "ahead" or "behind" if
    the difference is real."""

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
