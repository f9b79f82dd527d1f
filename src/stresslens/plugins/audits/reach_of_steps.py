from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._tables import attacked_rows, said

AUDIT = "reach of steps"


def reach_of_steps(table: Sequence[Row]) -> Finding:
    """The steps of an attack together cannot cross the ball: steps · step size < 2 radii.

    Serious where they cannot even reach its edge from the middle (less than one radius), else
    minor: from a random start the far side is out of reach.
    """
    told = [row for row in attacked_rows(table) if row.steps and row.step_size and row.eps > 0]
    if not told:
        return not_checked(AUDIT, "the table gives no steps with their size")
    short = [row for row in told if (row.steps or 0) * (row.step_size or 0) < 2 * row.eps * (1 - 1e-9)]
    if not short:
        return no_sign(AUDIT, f"in {len(told)} rows the steps cross the ball", len(told))
    ratio = {id(row): (row.steps or 0) * (row.step_size or 0) / row.eps for row in short}
    worst = min(short, key=lambda row: ratio[id(row)])
    return sign(
        AUDIT,
        f"{len(short)} of {len(told)} rows cannot cross their ball; {worst.steps} steps of {worst.step_size:g} move at most "
        f"{ratio[id(worst)] * worst.eps:.3g} of a radius of {worst.eps:g}",
        len(told),
        "Let steps times step size be at least twice the radius: a step of 2.5 radii over the number of steps is usual.",
        serious=ratio[id(worst)] < 1 - 1e-9,
        items=[
            f"{said(row)}: {row.steps} steps of {row.step_size:g} reach {ratio[id(row)]:.3g} radii"
            for row in short
        ],
    )
