from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "short steps"


def short_steps(trace: Sequence[Trace]) -> Finding:
    """The steps of an attack together are shorter than two radii, so from a random start it cannot
    cross its ball; shorter than one, and it cannot reach the edge from the image itself, which is
    serious."""
    told = [(one, reach) for one in trace if one.eps > 0 and (reach := _reach(one)) is not None]
    if not told:
        return not_checked(AUDIT, "no attack has steps of a size of its own")
    n = max(one.n for one, _ in told)
    short = [(one, reach) for one, reach in told if reach < 2 - 1e-9]
    if not short:
        return no_sign(AUDIT, f"the steps of {len(told)} attempts cross the ball", n)
    worst, reach = min(short, key=lambda pair: pair[1])
    return sign(
        AUDIT,
        f"{worst.attack}: {worst.options.get('steps')} steps reach {reach:.3g} radii at {worst.eps:g}",
        n,
        "Let steps times step size be at least twice the largest radius: leave the step size out (2.5 radii over the number of "
        "steps), or give it as relative_step.",
        serious=reach < 1 - 1e-9,
        items=[f"{one.attack} at {one.eps:g}: {reach:.3g} radii" for one, reach in short],
    )


def _reach(trace: Trace) -> float | None:
    """All steps together in radii, of an attack whose options give both."""
    steps, size, relative = (trace.options.get(key) for key in ("steps", "step_size", "relative_step"))
    if not steps or not (size or relative):
        return None
    return float(steps) * (float(size) / trace.eps if size else float(relative or 0))
