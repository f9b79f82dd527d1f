from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import targeted_success
from stresslens.plugins.audits._tables import attacked_rows, clean_of, row_text

AUDIT = "sum of shares"


def sum_of_shares(table: Sequence[Row]) -> Finding:
    """Robust accuracy and the share of broken images do not add up to the clean accuracy.

    The attack's success rate may be a share of all images (robust = clean - rate), of the correct
    ones (robust = clean · (1 - rate)), or include clean errors (robust = 1 - rate). Above 100 it is
    a number of images. A sign, and serious, if none of the three holds for a row, to the digits that
    are written. Attacks that are targeted by their name are left out.
    """
    lines = Counter(row.line for row in attacked_rows(table))
    known = [
        (row, clean, rate)
        for row in attacked_rows(table)
        if lines[row.line] == 1 and not targeted_success(row.attack)
        if (rate := _rate(row)) and (clean := clean_of(table, row.model))
    ]
    if not known:
        return not_checked(AUDIT, "the table does not give a success rate beside accuracy and clean accuracy")
    wrong = [(row, clean, rate) for row, clean, rate in known if not _adds_up(row, clean, *rate)]
    if not wrong:
        return no_sign(AUDIT, f"in {len(known)} rows accuracy and success rate add up", len(known))
    row, clean, (broken, _) = wrong[0]
    return sign(
        AUDIT,
        f"in {len(wrong)} of {len(known)} rows accuracy and success rate do not add up: "
        f"{100 * clean.accuracy:.2f} % clean, {100 * row.accuracy:.2f} % left, {100 * broken:.2f} % broken",
        len(known),
        "Compute both from the same verdicts, over the same images, and say what the success rate is a "
        "share of.",
        items=[f"{row_text(row)}; success rate {row.broken}" for row, _, _ in wrong],
    )


def _rate(row: Row) -> tuple[float, float] | None:
    """The success rate as a share of 1, and the unit of its last digit; None if it is not a number."""
    found = re.fullmatch(r"\s*(\d*(?:\.(\d+))?)\s*%?\s*", row.broken)
    if found is None or not found[1]:
        return None
    value, unit = float(found[1]), 10.0 ** -len(found[2] or "")
    if value > 100:
        return (value / row.n, 0.0) if row.n else None
    percent = value > 1 or "%" in row.broken or (unit == 1 and row.grain >= 0.01)
    return (value / 100, unit / 100) if percent else (value, unit)


def _adds_up(row: Row, clean: Row, rate: float, unit: float) -> bool:
    slack = (row.grain + clean.grain + unit) / 2 * 1.5 + (0.5 / row.n if row.n else 0) + 1e-6
    expected = (clean.accuracy - rate, clean.accuracy * (1 - rate), 1 - rate)
    return any(abs(row.accuracy - value) <= slack for value in expected)
