from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._tables import clean_of, is_serious, ladders, least, row_text

AUDIT = "rising with radius"


def rising_with_radius(table: Sequence[Row]) -> Finding:
    """Accuracy under the same attack is higher at a larger radius, or higher than the clean
    accuracy.

    See Athalye et al. (2018), section 3: a ball contains every smaller one. A sign from two images
    on (one point if n is not known). For a single-step attack it is minor, because one long step
    may jump over adversarial images that a shorter one finds.
    """
    pairs: list[tuple[Row, Row]] = []
    for rows in ladders(table):
        clean = clean_of(table, rows[0].model)
        for k, row in enumerate(rows):
            nearer = [other for other in rows[:k] if other.eps < row.eps and _as_strong(row, other)]
            pairs += [(other, row) for other in ([clean] if clean else []) + nearer]
    if not pairs:
        return not_checked(AUDIT, "the table has no attack at two radii, and no clean row")
    rises = [(low, high) for low, high in pairs if high.accuracy - low.accuracy >= least(low, high)]
    if not rises:
        return no_sign(AUDIT, f"in {len(pairs)} pairs accuracy is no higher at the larger radius", len(pairs))
    low, high = max(rises, key=lambda pair: pair[1].accuracy - pair[0].accuracy)
    grave = [
        pair
        for pair in rises
        if is_serious(*pair)
        and (attack_kind(pair[1].attack) != "single step" or attack_kind(pair[0].attack) == "clean")
    ]
    return sign(
        AUDIT,
        f"in {len(rises)} of {len(pairs)} pairs accuracy is higher at the larger radius, by up to "
        f"{100 * (high.accuracy - low.accuracy):.2f} points",
        len(pairs),
        "Keep, for each image, the adversarial image of a smaller radius; use more steps, and let the step "
        "grow with the radius. If accuracy exceeds the clean one, check what is attacked: labels, "
        "evaluation mode, the range of the images.",
        serious=bool(grave),
        items=[f"{row_text(low)}; {row_text(high)}" for low, high in rises],
    )


def _as_strong(row: Row, other: Row) -> bool:
    """Whether the attack of `row` has at least as many steps as `other`, and the same kind of step
    size."""
    return (row.steps or 0) >= (other.steps or 0) and (row.step_size is None) == (other.step_size is None)
