from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Curve, Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._left_out import standing_out

AUDIT = "untouched images"
SHARE = 0.05


def untouched_images(curve: Curve, trace: Sequence[Trace]) -> Finding:
    """An attack returned images as they were given, tried no other iterate of them, and moved others.

    It may have left them out: behind the first batch, of one class, after an error. A sign from two
    images on. Serious if nothing was broken and every image came back untouched; if other unbroken
    images were moved and the untouched ones are a twentieth of the unbroken; or if they stand out
    by their class or place (hypergeometric test, 1 % over all groups). Minimum-norm attacks, which
    return the original where they find nothing, are left out. In l1 a step may move a single pixel
    that is at the edge of the box already: single steps are left out there, and a twentieth is not
    serious.
    """
    still = ("smallest", "single step") if curve.norm == "l1" else ("smallest",)
    attempts = [one for one in trace if one.n and one.eps > 0 and attack_kind(one.attack) not in still]
    if not attempts:
        return not_checked(AUDIT, "nothing was attacked with a perturbation of a given size")
    n = max(one.n for one in attempts)
    left = [one for one in attempts if one.untouched >= 2]
    if not left:
        return no_sign(AUDIT, f"in {len(attempts)} attempts at most one unbroken image was not moved", n)
    share = 1.0 if curve.norm == "l1" else SHARE
    worst = max(left, key=lambda one: (_serious(one, share), one.untouched / one.n))
    where = standing_out(worst.untouched_in)
    return sign(
        AUDIT,
        f"{worst.attack} at radius {worst.eps:g}: {worst.untouched:,} of {worst.n - worst.broke:,} images "
        "that it did not break came back as they were given"
        + (f"; they stand out in {', '.join(where)}" if where else ""),
        n,
        "Check that the attack loops over all of its batch: no break, no dropped last batch, no filter, no "
        "exception that ends it early. If it returns the original where it fails, let it return its last "
        "or best iterate, so that this can be told apart.",
        serious=any(_serious(one, share) for one in left),
        items=[f"{one.attack} at {one.eps:g}: {one.untouched:,} of {one.n - one.broke:,}" for one in left],
    )


def _serious(trace: Trace, share: float) -> bool:
    unbroken = trace.n - trace.broke
    if trace.untouched == unbroken:
        return trace.broke == 0
    return trace.untouched >= max(3, share * unbroken) or bool(standing_out(trace.untouched_in))
