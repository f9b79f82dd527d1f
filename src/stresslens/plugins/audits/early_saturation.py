from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._tables import (
    UNKNOWN,
    attacked_rows,
    clean_of,
    comparable,
    least,
    of_one_model,
    row_text,
)

AUDIT = "early saturation"
SLOPE = 0.25
"""A working attack breaks images faster, not four times slower, while most are still left."""


def early_saturation(table: Sequence[Row]) -> Finding:
    """An iterative attack breaks a few images at once and hardly more, though it moves further.

    That is the pattern of steps in a wrong direction: away from the target, or down the loss. The
    distance that an attack can move is the radius or steps times step size, whichever is smaller. So
    a radius that the steps do not reach does not count as moved. A sign if a distance at least twice
    as long breaks images at less than a fourth of the rate up to the shorter one (by at least a
    point), while more than half of the clean accuracy is left.
    """
    moving = [
        row
        for row in attacked_rows(table)
        if attack_kind(row.attack) in ("iterative", "other") and row.steps and row.step_size and row.eps > 0
    ]
    triples = [
        (clean, near, far)
        for rows in of_one_model(moving)
        for near, far in permutations(rows, 2)
        if near.attack == far.attack
        and comparable(near, far)
        and _distance(far) >= 2 * _distance(near) * (1 - 1e-9)
        and (clean := clean_of(table, near.model)) is not None
    ]
    if not triples:
        return not_checked(
            AUDIT, "no iterative attack has steps and step size at two distances, beside a clean row"
        )
    flat = [rows for rows in triples if _saturates(*rows)]
    if not flat:
        evidence = f"in {len(triples)} pairs an attack that moves further breaks more"
        return no_sign(AUDIT, evidence, len(triples))
    clean, near, far = max(flat, key=lambda rows: (_distance(rows[1]), -rows[2].accuracy))
    return sign(
        AUDIT,
        f"{100 * (clean.accuracy - near.accuracy):.2f} points lost within {_distance(near):.3g}, and "
        f"{100 * (near.accuracy - far.accuracy):.2f} more within {_distance(far):.3g}, with "
        f"{100 * far.accuracy:.2f} % left: steps in a wrong direction look like this",
        len(triples),
        "Check the sign of the step. A targeted attack must lower the loss of its target; one that raises it "
        "moves away from a class that was unlikely anyway. Print the probability of the target, or of the "
        "true class, at every step. If it moves the right way, look for hidden gradients (square, noise).",
        items=[f"{row_text(clean)}; {row_text(near)}; {row_text(far)}" for clean, near, far in flat],
    )


def _distance(row: Row) -> float:
    return min(row.eps, (row.steps or 0) * (row.step_size or 0.0))


def _saturates(clean: Row, near: Row, far: Row) -> bool:
    fall, more = clean.accuracy - near.accuracy, near.accuracy - far.accuracy
    rate = fall / _distance(near)
    return (
        fall >= max(UNKNOWN, least(clean, near))
        and far.accuracy > clean.accuracy / 2
        and more > -least(near, far)
        and more / (_distance(far) - _distance(near)) < SLOPE * rate
    )
