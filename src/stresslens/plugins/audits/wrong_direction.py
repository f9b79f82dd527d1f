from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.metrics.intervals import wilson
from stresslens.plugins.audits._attack_names import attack_kind

AUDIT = "wrong direction"
FEWEST, MOST = 12, 0.75


def wrong_direction(trace: Sequence[Trace]) -> Finding:
    """At each step of a gradient attack its target is less likely, or without a target the true class
    more likely, than without attack.

    So the steps have the wrong sign. Only images that it did not break are judged, by the iterates
    after the first. A sign, and serious, from twelve images on, if more than three in four of them
    never came nearer (by the lower end of the 95 % interval). Random models and attacks without
    gradients or of smallest norm are left out.
    """
    judged = [
        one
        for one in trace
        if one.judged >= FEWEST
        and one.eps > 0
        and one.passes == 1
        and attack_kind(one.attack) in ("single step", "iterative", "other")
    ]
    if not judged:
        return not_checked(
            AUDIT, f"no gradient attack left {FEWEST} images unbroken that it can be judged by"
        )
    n = max(one.judged for one in judged)
    wrong = [one for one in judged if wilson(one.backwards, one.judged).low > MOST]
    worst = max(wrong or judged, key=lambda one: one.backwards / one.judged)
    evidence = (
        f"{worst.attack} at {worst.eps:g}: for {worst.backwards:,} of {worst.judged:,} images that it did "
        "not break, each step left the target less likely (without a target: the true class more likely)"
    )
    if not wrong:
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        evidence,
        n,
        "Change the sign of the step: an untargeted attack raises the loss of the true class, a targeted one "
        "lowers the loss of its target.",
        items=[f"{one.attack} at {one.eps:g}: {one.backwards:,} of {one.judged:,}" for one in wrong],
    )
