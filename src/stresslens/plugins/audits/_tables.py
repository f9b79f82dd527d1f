"""What the audits of a table share: which rows are comparable, and from when on a difference counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from stresslens.core.evidence import CLEAN, Row
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, sign

UNKNOWN = 0.01
"""Where a table does not say over how many images, a difference counts from one point on."""
MANY_IMAGES, MANY_POINTS = 5, 0.005
"""A difference of five images one way (sign test p = 2⁻⁵) that is also half a point is called serious."""


def least(*rows: Row, images: int = 2) -> float:
    """The difference from which two accuracies count as different: so many images, or one point
    where n is not known, and always more than the rounding of the figures."""
    known = [row.n for row in rows if row.n]
    share = images / min(known) if len(known) == len(rows) else UNKNOWN
    return max(share, *(1.5 * row.grain for row in rows)) - 1e-9


def serious(difference: float, *rows: Row) -> bool:
    """Whether a difference that counts is beyond chance, too."""
    known = [row.n for row in rows if row.n]
    if len(known) < len(rows):
        return difference >= UNKNOWN
    return difference * min(known) > MANY_IMAGES - 0.5 and difference >= MANY_POINTS


def clean_of(table: Sequence[Row], model: str) -> Row | None:
    """The row of a model that nothing attacked."""
    return next((row for row in table if row.model == model and row.attack == CLEAN), None)


def attacked_rows(table: Sequence[Row]) -> list[Row]:
    return [row for row in table if row.attack != CLEAN]


def ladders(table: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of one model under one attack in one norm, by ascending radius."""

    def key(row: Row) -> tuple[str, str, str]:
        return row.model, row.attack, row.norm or ""

    for _, rows in groupby(sorted(attacked_rows(table), key=key), key=key):
        yield sorted(rows, key=lambda row: row.eps)


Pair = tuple[Row, Row]
"""A row, and one that should have no more right."""


def out_of_order(
    audit: str,
    pairs: Sequence[Pair],
    wrong: Sequence[Pair],
    holds: str,
    fails: str,
    remedy: str,
    *,
    serious: bool,
) -> Finding:
    """A sign where in some of the pairs, `wrong`, the second row has more right than the first;
    told by how much at most."""
    if not wrong:
        return no_sign(audit, f"in {len(pairs)} pairs {holds}", len(pairs))
    most = max(second.accuracy - first.accuracy for first, second in wrong)
    return sign(
        audit,
        f"in {len(wrong)} of {len(pairs)} pairs {fails}, by up to {100 * most:.2f} points",
        len(pairs),
        remedy,
        serious=serious,
        items=[f"{said(first)}; {said(second)}" for first, second in wrong],
    )


def said(row: Row) -> str:
    """A row's figure in words: "mlp under pgd at 0.05: 77.95 % (line 2)"."""
    what = "unattacked" if row.attack == CLEAN else f"under {row.attack} at {row.eps:g}"
    name = f"{row.model} " if row.model else ""
    return f"{name}{what}: {100 * row.accuracy:.2f} %{f' (line {row.line})' if row.line else ''}"


def stalls(clean: float, near: float, far: float, ratio: float) -> bool:
    """Whether accuracy, after a fall from `clean` to `near`, stays there although the radius grows
    by `ratio`, and is still more than half of what it was: a fourth of the first fall in a ball at
    least four times as large."""
    fall, more = clean - near, near - far
    return ratio >= 4 and fall >= UNKNOWN and more < 0.25 * fall and far > clean / 2
