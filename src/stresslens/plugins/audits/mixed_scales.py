from __future__ import annotations

import re
from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import is_share, row_text, shares_of

AUDIT = "mixed scales"


def mixed_scales(table: Sequence[Row]) -> Finding:
    """Some figures of a table in percent look like shares of 1: 0.55 between 95.0 and 60.0.

    Such a figure is read as 0.55 %. A sign if it is written differently: with more decimals than
    the figures above 1, as ".55", or without their percent sign, or if a whole column of several
    figures lies between 0.05 and 1. With n it is also a sign, and serious, if only the share is a
    whole number of images; if only the percentage is, there is no sign.
    """
    written = [(row, shares_of(row)) for row in table if row.written]
    above = [row for row, value in written if value > 1]
    low = [row for row, value in written if 0 < value <= 1 and "%" not in row.written]
    if not above or not low:
        return not_checked(AUDIT, "no figure up to 1 stands in a table of percentages")
    decimals = max(_decimals(row) for row in above)
    signs = any("%" in row.written for row in above)
    columns = _low_columns(written)
    odd = []
    for row in low:
        as_share, as_percent = _possible(row, 1), _possible(row, 100)
        looks = (
            _decimals(row) > decimals
            or row.written.lstrip().startswith(".")
            or (signs and "%" not in row.written)
            or (row.attack, row.eps) in columns
        )
        if (as_share and not as_percent) or (looks and not (as_percent and not as_share)):
            odd.append(row)
    if not odd:
        return no_sign(AUDIT, f"{len(low)} figures up to 1 are written like the percentages", len(written))
    first = odd[0]
    proven = [row for row in odd if _possible(row, 1) and not _possible(row, 100)]
    more = f"; of n = {proven[0].n:,} images only the share is possible" if proven else ""
    return sign(
        AUDIT,
        f"{len(odd)} of {len(written)} figures may be shares of 1 among percentages: {first.written} is read "
        f"as {100 * first.accuracy:.4g} %{more}",
        len(written),
        "Write all accuracies in percent, or all as shares of 1, with the same number of decimals.",
        serious=bool(proven),
        items=[row_text(row) for row in odd],
    )


def _low_columns(written: Sequence[tuple[Row, float]]) -> set[tuple[str, float]]:
    """The attacks and radii with several figures of two decimals, all between 0.05 and 1."""
    found: dict[tuple[str, float], list[bool]] = {}
    for row, value in written:
        found.setdefault((row.attack, row.eps), []).append(0.05 <= value <= 1 and _decimals(row) > 1)
    return {key for key, low in found.items() if len(low) > 1 and all(low)}


def _decimals(row: Row) -> int:
    found = re.match(r"\s*\d*\.(\d+)", row.written)
    return len(found[1]) if found else 0


def _possible(row: Row, scale: int) -> bool:
    """Whether the figure as written, in this unit, is a whole number of images; True without n."""
    return not row.n or is_share(shares_of(row) / scale, 10.0 ** -_decimals(row) / scale, row.n)
