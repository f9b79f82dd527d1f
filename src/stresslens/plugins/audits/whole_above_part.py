from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from stresslens.core.evidence import Row
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind, is_autoattack, is_part, targeted_success
from stresslens.plugins.audits._tables import (
    assumed,
    attacked_rows,
    comparable,
    impossible,
    is_serious,
    least,
    of_one_model,
    out_of_order,
    same_eps,
)

AUDIT = "whole above part"


def whole_above_part(table: Sequence[Row]) -> Finding:
    """The worst case over several attacks is higher than one of these attacks.

    On the same images that is impossible: an image that a part breaks counts as broken. AutoAttack
    is the worst case over APGD, FAB and Square (Croce & Hein 2020); a row named worst case, union
    or ensemble is one over all attacks of the table. A sign from one image on, beyond rounding;
    minor below five images and half a point, because a part that ran once more has other random
    starts. It is minor too if another gradient attack, which is no part of AutoAttack, leaves two
    images fewer. If n differs, the difference must be beyond chance.
    """
    pairs = [
        (part, whole)
        for rows in of_one_model(attacked_rows(table))
        for part, whole in permutations(rows, 2)
        if comparable(part, whole) and same_eps(part, whole)
        if is_part(part.attack, whole.attack) or (is_autoattack(whole.attack) and _rival(part))
    ]
    if not pairs:
        return not_checked(AUDIT, "the table has no worst case, and no AutoAttack, beside one of its attacks")
    wrong = [
        (part, whole)
        for part, whole in pairs
        if impossible(part, whole)
        and (is_part(part.attack, whole.attack) or whole.accuracy - part.accuracy >= least(part, whole))
    ]
    return out_of_order(
        AUDIT,
        pairs,
        wrong,
        "the worst case is no higher than the attack",
        f"the worst case leaves more correct than one of its attacks, {assumed(_rows(wrong))}",
        "Count an image as broken if any of the attacks breaks it, over the same images, labels and radius. "
        "The mean of several accuracies, or their largest, is no worst case.",
        serious=any(is_part(part.attack, whole.attack) and is_serious(part, whole) for part, whole in wrong),
    )


def _rival(row: Row) -> bool:
    """Whether AutoAttack should leave no more than this attack: a gradient attack on the true label."""
    return attack_kind(row.attack) in ("iterative", "smallest") and not (
        is_autoattack(row.attack) or targeted_success(row.attack)
    )


def _rows(pairs: Sequence[tuple[Row, Row]]) -> list[Row]:
    return [row for pair in pairs for row in pair]
