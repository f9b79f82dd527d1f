from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Count, Finding
from stresslens.plugins.audits._tables import is_share, row_text

AUDIT = "impossible share"


def impossible_share(table: Sequence[Row], *, seeds: Count = 5) -> Finding:
    """No whole number of n images gives the accuracy to the digits that are written.

    See Brown & Heathers (2017), the GRIM test. Figures may be rounded or cut off. A sign from one
    figure on. It is minor if a mean over 2 to `seeds` runs gives all of them, and they are more than
    half of the figures; serious otherwise. Figures that are written with a spread (±) are means, and
    are left out; so are those with so few digits that every figure is possible.
    """
    tested = [row for row in table if row.n and row.grain and row.grain * row.n < 0.99 and not _is_mean(row)]
    if not tested:
        return not_checked(AUDIT, "no figure has both n and enough digits to contradict it")
    wrong = [row for row in tested if not is_share(row.accuracy, row.grain, row.n or 1)]
    if not wrong:
        return no_sign(AUDIT, f"{len(tested)} figures are a whole number of their n images", len(tested))
    means = [
        runs
        for runs in range(2, seeds + 1)
        if 2 * len(wrong) > len(tested)
        and all(is_share(row.accuracy, row.grain, runs * (row.n or 1)) for row in wrong)
    ]
    explained = f"; a mean over {means[0]} runs would be" if means else ""
    first = wrong[0]
    near = round(first.accuracy * (first.n or 1))
    return sign(
        AUDIT,
        f"{len(wrong)} of {len(tested)} figures are no whole number of n images{explained} "
        f"({100 * first.accuracy:.4g} % of {first.n:,}: {near - 1:,}, {near:,} and {near + 1:,} images are "
        f"{', '.join(f'{100 * k / (first.n or 1):.4f}' for k in (near - 1, near, near + 1))} %)",
        len(tested),
        "State the n of each figure, and whether it is a mean over runs. Check that the figure was copied "
        "rightly, and that no image was left out or counted twice.",
        serious=not means,
        items=[f"{row_text(row)}, n = {row.n:,}" for row in wrong],
    )


def _is_mean(row: Row) -> bool:
    return "±" in row.written or "+/-" in row.written
