from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import attacked_rows, row_text

AUDIT = "step beyond radius"


def step_beyond_radius(table: Sequence[Row]) -> Finding:
    """One step of an iterative attack is longer than twice the radius.

    Every iterate is at the edge of the ball, and the attack jumps between corners. Minor: such an
    attack is valid, but weaker than its number of steps suggests, and not comparable with rows of
    small steps.
    """
    known = [row for row in attacked_rows(table) if row.step_size and (row.steps or 2) > 1 and row.eps > 0]
    if not known:
        return not_checked(AUDIT, "the table gives no step sizes of iterative attacks")
    long = [row for row in known if (row.step_size or 0) > 2 * row.eps * (1 + 1e-9)]
    if not long:
        return no_sign(AUDIT, f"in {len(known)} rows a step stays within the ball", len(known))
    worst = max(long, key=lambda row: (row.step_size or 0) / row.eps)
    return sign(
        AUDIT,
        f"in {len(long)} of {len(known)} rows one step is longer than the diameter of the ball "
        f"(step {worst.step_size:g}, radius {worst.eps:g})",
        len(known),
        "Let the step be a share of the radius (2.5 radii over the number of steps), "
        "and compare rows that differ in one setting only.",
        serious=False,
        items=[f"{row_text(row)}: steps of {row.step_size:g}" for row in long],
    )
