"""Shared by audits of a table: comparable rows, and how large a difference must be to count."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from stresslens.core.evidence import CLEAN, Row
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding

UNKNOWN = 0.01
"""If a table does not give the number of images, a difference counts from one point on."""
MANY_IMAGES, MANY_POINTS = 5, 0.005
"""A difference is serious from five images in one direction (sign test p = 2⁻⁵) and half a point
on."""


def least(*rows: Row, images: int = 2) -> float:
    """The smallest difference that counts between accuracies.

    It is `images` images, or one point if n is not known, and always more than the rounding.
    """
    known = [row.n for row in rows if row.n]
    share = images / min(known) if len(known) == len(rows) else UNKNOWN
    return max(share, *(1.5 * row.grain for row in rows)) - 1e-9


def is_serious(lower: Row, higher: Row) -> bool:
    """Whether a difference that counts is also beyond chance."""
    difference = higher.accuracy - lower.accuracy
    if not lower.n or not higher.n:
        return difference >= UNKNOWN
    return difference * min(lower.n, higher.n) > MANY_IMAGES - 0.5 and difference >= MANY_POINTS


def impossible(bound: Row, above: Row) -> bool:
    """Whether an accuracy exceeds one that it cannot exceed on the same images, by more than
    rounding.

    Rows of equal n are taken to have the same images. If n differs, so do the images, and the excess
    must also be beyond chance: 2.6 standard errors of the difference.
    """
    excess, rounding = above.accuracy - bound.accuracy, (bound.grain + above.grain) / 2 + 1e-9
    if same_images(bound, above):
        return excess > rounding
    errors = [row.accuracy * (1 - row.accuracy) / row.n for row in (bound, above) if row.n]
    return excess > rounding + 2.6 * math.sqrt(sum(errors))


def same_images(*rows: Row) -> bool:
    """Whether the rows may be of the same images: no two give different numbers of images."""
    return len({row.n for row in rows if row.n}) < 2


def assumed(rows: Sequence[Row]) -> str:
    """What a comparison of these rows assumes of their images, in words."""
    sizes = {row.n for row in rows}
    if len(sizes) == 1 and None not in sizes:
        return f"on the same {sizes.pop():,} images"
    return "if the images are the same" if same_images(*rows) else "beyond what other images explain"


def comparable(a: Row, b: Row) -> bool:
    """Whether two rows are of the same model, kind of accuracy and norm, as far as they say it."""
    return (a.model, a.score) == (b.model, b.score) and not (a.norm and b.norm and a.norm != b.norm)


def same_eps(a: Row, b: Row) -> bool:
    return math.isclose(a.eps, b.eps, rel_tol=1e-3)


def shares_of(row: Row) -> float:
    """The number that the table writes for an accuracy, without sign, spread and interval."""
    found = re.match(r"\s*(\d*\.?\d+)", row.written)
    return float(found[1]) if found else math.nan


def is_share(value: float, grain: float, n: int) -> bool:
    """Whether a share with this unit of its last digit is k/n for a whole k, rounded or cut off."""
    k = round(value * n)
    return any(-grain / 2 - 1e-9 <= j / n - value <= max(grain / 2, grain * 0.999) + 1e-9 for j in (k, k + 1))


def clean_of(table: Sequence[Row], model: str) -> Row | None:
    """The row with a model's clean accuracy."""
    return next((row for row in table if row.model == model and row.attack == CLEAN), None)


def attacked_rows(table: Sequence[Row]) -> list[Row]:
    return [row for row in table if row.attack != CLEAN]


def ladders(table: Sequence[Row]) -> Iterator[list[Row]]:
    """For each model, attack and norm, the rows by ascending radius."""

    def key(row: Row) -> tuple[str, str, str]:
        return row.model, row.attack, row.norm or ""

    for _, rows in groupby(sorted(attacked_rows(table), key=key), key=key):
        yield sorted(rows, key=lambda row: row.eps)


def of_one_model(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each model and kind of accuracy."""

    def key(row: Row) -> tuple[str, str]:
        return row.model, row.score

    for _, found in groupby(sorted(rows, key=key), key=key):
        yield list(found)


Pair = tuple[Row, Row]
"""A row, and another one whose accuracy should not be higher."""


def out_of_order(
    audit: str,
    pairs: Sequence[Pair],
    wrong: Sequence[Pair],
    holds: str,
    fails: str,
    remedy: str,
    *,
    serious: bool | None = None,
) -> Finding:
    """A sign if the second row has a higher accuracy in some of the pairs (`wrong`).

    The evidence gives the largest difference. By default it is serious if one of them is
    (`is_serious`).
    """
    if not wrong:
        return no_sign(audit, f"in {len(pairs)} pairs {holds}", len(pairs))
    most = max(second.accuracy - first.accuracy for first, second in wrong)
    return sign(
        audit,
        f"in {len(wrong)} of {len(pairs)} pairs {fails}, by up to {100 * most:.2f} points",
        len(pairs),
        remedy,
        serious=any(is_serious(*pair) for pair in wrong) if serious is None else serious,
        items=[f"{row_text(first)}; {row_text(second)}" for first, second in wrong],
    )


def row_text(row: Row) -> str:
    """A row as text: "mlp under pgd at 0.05: 77.95 % (line 2)"."""
    what = "without attack" if row.attack == CLEAN else f"under {row.attack} at {row.eps:g}"
    name = f"{row.model} " if row.model else ""
    return f"{name}{what}: {100 * row.accuracy:.2f} %{f' (line {row.line})' if row.line else ''}"


def stalls(clean: float, near: float, far: float, ratio: float) -> bool:
    """Whether accuracy falls from `clean` to `near`, but hardly further to `far` at a larger
    radius.

    That is so if the radius grows by `ratio` ≥ 4, the further fall is less than a fourth of the
    first, and more than half of the clean accuracy is left.
    """
    fall, more = clean - near, near - far
    return ratio >= 4 and fall >= UNKNOWN and more < 0.25 * fall and far > clean / 2
