from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._tables import clean_of, ladders, least, said, stalls

AUDIT = "barely moves"


def barely_moves(table: Sequence[Row]) -> Finding:
    """A much larger radius costs hardly any more accuracy (Carlini et al. 2019, "accuracy against
    perturbation budget").

    A sign where a ball at least four times as large adds less than a fourth to the fall from the
    clean accuracy, and more than half of that is left: the attack does not use the room it has. In
    linf also where more than half is left at a radius of 0.5 or more, at which every image can be
    made the same grey.
    """
    stalled: list[tuple[Row, Row, Row]] = []
    grey: list[tuple[Row, Row]] = []
    looked = 0
    for rows in ladders(table):
        clean = clean_of(table, rows[0].model)
        if clean is None or (
            rows[0].norm == "l1" and attack_kind(rows[0].attack) == "single step"
        ):  # which moves one pixel only
            continue
        for place, far in enumerate(rows):
            if far.norm == "linf" and far.eps >= 0.5:
                looked += 1
                grey += [(far, clean)] if far.accuracy > clean.accuracy / 2 else []
            for near in rows[:place]:
                if near.eps > 0 and far.eps >= 4 * near.eps:
                    looked += 1
                    falls = near.accuracy > far.accuracy - least(near, far)  # else: rising with radius
                    found = falls and stalls(clean.accuracy, near.accuracy, far.accuracy, far.eps / near.eps)
                    stalled += [(clean, near, far)] if found else []
    if not looked:
        return not_checked(AUDIT, "the table has no clean row with radii a factor of four apart")
    if not stalled and not grey:
        return no_sign(AUDIT, f"in {looked} pairs the larger ball costs more accuracy", looked)
    evidence = []
    if stalled:
        clean, near, far = max(
            stalled, key=lambda rows: (_settings(rows[1]) == _settings(rows[2]), rows[2].eps / rows[1].eps)
        )
        evidence.append(
            f"{100 * (clean.accuracy - near.accuracy):.2f} points lost at radius {near.eps:g}, and "
            f"{100 * (near.accuracy - far.accuracy):.2f} more at {far.eps:g}, {far.eps / near.eps:.3g} times as far"
        )
    if grey:
        evidence.append(
            f"{100 * grey[0][0].accuracy:.2f} % still right at linf {grey[0][0].eps:g}, where any image can be made grey"
        )
    return sign(
        AUDIT,
        "; ".join(evidence),
        looked,
        "The attack hardly works, so its figures say nothing of the model. Let steps times step size be at least twice the radius "
        "(the step a share of the radius), attack the true label rather than a distant target, and run PGD from random starts "
        "or APGD; at linf 0.5 accuracy must be at chance.",
        items=[f"{said(clean)}; {said(near)}; {said(far)}" for clean, near, far in stalled]
        + [said(row) for row, _ in grey],
    )


def _settings(row: Row) -> tuple[int | None, float | None]:
    return row.steps, row.step_size
