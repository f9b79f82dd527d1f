from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.metrics.intervals import wilson

AUDIT = "size of table"


def size_of_table(table: Sequence[Row]) -> Finding:
    """The number of images is missing, so the uncertainty of the figures is unknown; minor."""
    if not table:
        return not_checked(AUDIT, "the table has no rows")
    silent = sum(row.n is None for row in table)
    if silent:
        return sign(
            AUDIT,
            f"{silent} of {len(table)} figures do not give the number of images; "
            "differences below one point were not checked",
            len(table),
            "Add a column n: over 1,000 images a figure near 50 % is uncertain by ±3 points, over 10,000 "
            "by ±1.",
            serious=False,
        )
    sizes = [row.n for row in table if row.n]
    widest = max(
        (wilson(row.accuracy * row.n, row.n) for row in table if row.n), key=lambda e: e.high - e.low
    )
    reach = f"{100 * widest.low:.1f} to {100 * widest.high:.1f} %"
    return no_sign(
        AUDIT, f"n is {min(sizes):,} to {max(sizes):,}; the widest 95 % interval is {reach}", len(table)
    )
