from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "short steps"


def short_steps(trace: Sequence[Trace]) -> Finding:
    """All steps of an attack together are shorter than two radii.

    From a random start, the attack cannot cross its ball. If they are shorter than one radius, it
    cannot reach the edge from the image itself, which is serious.
    """
    known = [(one, reach) for one in trace if one.eps > 0 and (reach := _reach(one)) is not None]
    if not known:
        return not_checked(AUDIT, "no attack has a fixed step size")
    n = max(one.n for one, _ in known)
    short = [(one, reach) for one, reach in known if reach < 2 - 1e-9]
    if not short:
        return no_sign(AUDIT, f"the steps of {len(known)} attempts cross the ball", n)
    worst, reach = min(short, key=lambda pair: pair[1])
    return sign(
        AUDIT,
        f"{worst.attack}: {worst.options.get('steps')} steps reach {reach:.3g} radii at {worst.eps:g}",
        n,
        "Let steps times step size be at least twice the largest radius: leave the step size out "
        "(2.5 radii over the number of steps), or give it as relative_step.",
        serious=reach < 1 - 1e-9,
        items=[f"{one.attack} at {one.eps:g}: {reach:.3g} radii" for one, reach in short],
    )


def _reach(trace: Trace) -> float | None:
    """The length of all steps together, in radii; None if the options do not give it."""
    steps, size, relative = (trace.options.get(key) for key in ("steps", "step_size", "relative_step"))
    if not steps or not (size or relative):
        return None
    return float(steps) * (float(size) / trace.eps if size else float(relative or 0))
