"""How the result of an attack is shown: a sentence, tables, the curve and broken images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from markupsafe import Markup
from numpy.typing import NDArray

from stresslens.charts.chart import card_with_charts
from stresslens.core.answers import NO_ANSWER, NOT_FINITE
from stresslens.core.cards import pictures, sentences
from stresslens.core.format import radius
from stresslens.core.panels import image_pixels
from stresslens.core.result_lists import Findings
from stresslens.core.tables import Percent, ResultTable, cell_text
from stresslens.core.text import counted
from stresslens.robustness.result_file import ResultFile
from stresslens.robustness.robust_curves import result_chart, shown_radii, threat_name, worst_case

PICTURES = 8
WORST = "all together"
"""The row of a table for the worst case over all attacks."""


def result_line(result: ResultFile) -> str:
    """The attack and its result in one line."""
    (_, clean), *rest = worst_case(result)
    at = [f"{cell_text(Percent(clean))} without attack"]
    at += [f"{cell_text(Percent(estimate))} at {radius(eps)}" for eps, estimate in rest[-1:]]
    figures = f"{threat_name(result)}, {counted(result.n, 'image')}: {result.measure} {', '.join(at)}"
    return "; ".join(filter(None, (figures, result.outside)))


def result_table(result: ResultFile) -> ResultTable:
    """The accuracy at each radius: in the worst case over all attacks, and under each individual
    attack."""
    cells: list[tuple[Any, ...]] = [(WORST, x, Percent(e)) for x, e in worst_case(result)]
    cells += [
        (each.label, row.eps, Percent(row.accuracy))
        for each in result.individual_attacks
        for row in each.rows
    ]
    return ResultTable(("attack", "radius", "accuracy"), cells)


def result_card(result: ResultFile, arrays: Mapping[str, NDArray[Any]]) -> str:
    return card_with_charts(
        result_line(result),
        sentences(Findings(result.findings).sentences, 4),
        _by_radius(result).html(),
        result_chart(result, result.individual_attacks),
        _broken_images(arrays),
    )


def _by_radius(result: ResultFile) -> ResultTable:
    """A row for each attack, a column for each radius that is shown."""
    curves = {WORST: dict(worst_case(result))}
    curves |= {each.label: {row.eps: row.accuracy for row in each.rows} for each in result.individual_attacks}
    radii = shown_radii(sorted({eps for curve in curves.values() for eps in curve}))
    known = {
        name: [
            Percent(curve[eps]) if eps in curve and math.isfinite(curve[eps].value) else None for eps in radii
        ]
        for name, curve in curves.items()
    }
    return ResultTable(
        ("accuracy at radius", *map(radius, radii)), [(name, *cells) for name, cells in known.items()]
    )


def _broken_images(arrays: Mapping[str, NDArray[Any]]) -> Markup | str:
    """The first adversarial images, each with its true class, its answer and its minimal radius."""
    shown = arrays["adversarials"][:PICTURES]
    if not len(shown):
        return ""
    captions = [
        f"class {arrays['labels'][row]} → {answer if answer != NO_ANSWER else NOT_FINITE} "
        f"at {radius(float(arrays['smallest'][row]))}"
        for row, answer in zip(arrays["rows"], arrays["adversarial_prediction"])
    ]
    return pictures(list(image_pixels(torch.from_numpy(shown))), captions)
