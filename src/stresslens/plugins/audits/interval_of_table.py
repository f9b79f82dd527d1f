from __future__ import annotations

import re
from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.metrics.intervals import wilson
from stresslens.plugins.audits._tables import row_text, shares_of

AUDIT = "interval of table"
INTERVAL = re.compile(r"[\(\[]\s*(\d*\.?\d+)\s*%?\s*(?:to|,|;|–|—|-)\s*(\d*\.?\d+)\s*%?\s*[\)\]]")
NARROW, WIDE = 0.6, 1.8


def interval_of_table(table: Sequence[Row]) -> Finding:
    """An interval beside a figure, such as "52.1 (49.0 to 55.2)", does not fit the figure or its n.

    A sign, and serious, if the figure lies outside its interval. It is minor if the interval is
    below 0.6 of the length of Wilson's 95 % interval for n images, or above 1.8 of it: it may be one
    over seeds, or of another level. A spread with ± is not judged, since it may be any of several
    things.
    """
    known = [(row, span) for row in table if (span := _span(row))]
    if not known:
        return not_checked(AUDIT, "no figure of the table has an interval of two ends")
    outside = [row for row, (low, high) in known if not low - row.grain <= row.accuracy <= high + row.grain]
    odd = [row for row, span in known if row not in outside and row.n and not _fits(row, *span)]
    if not outside and not odd:
        return no_sign(AUDIT, f"{len(known)} intervals hold their figure, as long as n says", len(known))
    row = (outside or odd)[0]
    usual = wilson(row.accuracy * row.n, row.n) if row.n else None
    should = (
        f"; Wilson's for n = {row.n:,} is {100 * usual.low:.1f} to {100 * usual.high:.1f}" if usual else ""
    )
    return sign(
        AUDIT,
        f"{len(outside)} of {len(known)} figures lie outside their interval, {len(odd)} intervals are too "
        f"short or too long for n ({row.written}{should})",
        len(known),
        "Say what the interval is over (images, seeds, both), its level and its method, and compute it from "
        "the n of the figure.",
        serious=bool(outside),
        items=[f"{row_text(row)}: {row.written}" for row in outside + odd],
    )


def _span(row: Row) -> tuple[float, float] | None:
    """The interval that is written, in the scale of the accuracy."""
    found = INTERVAL.search(row.written)
    if found is None or not row.accuracy:
        return None
    scale = row.accuracy / shares_of(row)
    return float(found[1]) * scale, float(found[2]) * scale


def _fits(row: Row, low: float, high: float) -> bool:
    usual = wilson(row.accuracy * (row.n or 1), row.n or 1)
    length, slack = usual.high - usual.low, 2 * row.grain
    return NARROW * length - slack <= high - low <= WIDE * length + slack
