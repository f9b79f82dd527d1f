from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._tables import clean_of, ladders, least, row_text, stalls

AUDIT = "barely moves"


def barely_moves(table: Sequence[Row]) -> Finding:
    """A much larger radius hardly lowers the accuracy further (Carlini et al. 2019).

    See "accuracy against perturbation budget" there. A sign if a radius at least four times as
    large adds less than a fourth to the fall from the clean accuracy, and more than half of the
    clean accuracy is left: the attack does not use its radius. Minor for a result of stresslens,
    where other audits attack the survivors again: the margins of some models fall like this. In
    linf it is also a sign if more than the largest class (if the classes are not known: more than
    half) is left at a radius of 0.5 or more, where every image can be made the same grey.
    """
    stalled: list[tuple[Row, Row, Row]] = []
    grey: list[tuple[Row, Row]] = []
    checked = 0
    for rows in ladders(table):
        clean = clean_of(table, rows[0].model)
        one_pixel = rows[0].norm == "l1" and attack_kind(rows[0].attack) == "single step"
        if clean is None or one_pixel:
            continue
        for k, far in enumerate(rows):
            if far.norm == "linf" and far.eps >= 0.5:
                checked += 1
                grey += [(far, clean)] if far.accuracy > _most_at_grey(clean, far) else []
            for near in rows[:k]:
                if near.eps > 0 and far.eps >= 4 * near.eps:
                    checked += 1
                    falls = near.accuracy > far.accuracy - least(near, far)  # else: rising with radius
                    flat = stalls(clean.accuracy, near.accuracy, far.accuracy, far.eps / near.eps)
                    stalled += [(clean, near, far)] if falls and flat else []
    if not checked:
        return not_checked(AUDIT, "the table has no clean row with radii a factor of four apart")
    if not stalled and not grey:
        return no_sign(AUDIT, f"in {checked} pairs the larger radius lowers the accuracy further", checked)
    evidence = []
    if stalled:
        clean, near, far = max(
            stalled, key=lambda rows: (_settings(rows[1]) == _settings(rows[2]), rows[2].eps / rows[1].eps)
        )
        evidence.append(
            f"{100 * (clean.accuracy - near.accuracy):.2f} points lost at radius {near.eps:g}, and "
            f"{100 * (near.accuracy - far.accuracy):.2f} more at {far.eps:g}, "
            f"{far.eps / near.eps:.3g} times as far"
        )
    if grey:
        evidence.append(
            f"{100 * grey[0][0].accuracy:.2f} % still correct at linf {grey[0][0].eps:g}, "
            "where any image can be made grey"
        )
    return sign(
        AUDIT,
        "; ".join(evidence),
        checked,
        "The attack hardly works, so its figures say nothing about the model. Let steps times step size be "
        "at least twice the radius (the step a share of the radius), attack the true label rather than a "
        "distant target, check the sign of its steps (toward a target the loss of the target falls), and run "
        "PGD from random starts or APGD; at linf 0.5 accuracy must be at chance.",
        serious=bool(grey) or any(near.largest_class is None for _, near, _ in stalled),
        items=[f"{row_text(clean)}; {row_text(near)}; {row_text(far)}" for clean, near, far in stalled]
        + [row_text(row) for row, _ in grey],
    )


def _most_at_grey(clean: Row, far: Row) -> float:
    """The highest accuracy that is no sign where every image can be made the same grey."""
    return clean.accuracy / 2 if far.largest_class is None else far.largest_class + least(clean, far) / 2


def _settings(row: Row) -> tuple[int | None, float | None]:
    return row.steps, row.step_size
