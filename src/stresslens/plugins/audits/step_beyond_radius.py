from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._tables import attacked_rows, said

AUDIT = "step beyond radius"


def step_beyond_radius(table: Sequence[Row]) -> Finding:
    """One step of an iterative attack is longer than twice the radius: every iterate lies at an
    edge of the ball, and the attack jumps between corners. Minor: such an attack is valid, but not
    what its number of steps suggests, and not comparable with rows of small steps."""
    told = [row for row in attacked_rows(table) if row.step_size and (row.steps or 2) > 1 and row.eps > 0]
    if not told:
        return not_checked(AUDIT, "the table gives no step sizes of iterative attacks")
    long = [row for row in told if (row.step_size or 0) > 2 * row.eps * (1 + 1e-9)]
    if not long:
        return no_sign(AUDIT, f"in {len(told)} rows a step stays within the ball", len(told))
    worst = max(long, key=lambda row: (row.step_size or 0) / row.eps)
    return sign(
        AUDIT,
        f"in {len(long)} of {len(told)} rows one step is longer than the ball is wide (step {worst.step_size:g}, radius "
        f"{worst.eps:g})",
        len(told),
        "Let the step be a share of the radius (2.5 radii over the number of steps), and compare rows that vary one thing only.",
        serious=False,
        items=[f"{said(row)}: steps of {row.step_size:g}" for row in long],
    )
