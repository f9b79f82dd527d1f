from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.metrics.intervals import wilson

AUDIT = "still rising"
MOST = 0.1


def still_rising(trace: Sequence[Trace]) -> Finding:
    """The loss of images that an attack could not break still rose when it ended.

    See Pintor et al. (2022), indicator 4. The best loss so far of each survivor (the logarithm of
    cross-entropy) is scaled to [0, 1] over its path. Over the last ten steps (with fewer than 50
    steps, the last fifth) it should rise by at most 0.05. Attempts of fewer than 20 iterates are
    left out, and so are attacks that report only the mean loss of a batch, as PGD does: with a
    constant step size the loss rises until the end. Minor; a sign from two images on, if they are
    beyond chance (the lower end of the 95 % interval) more than a tenth of the survivors. The audit
    of doubled steps shows how many images this costs.
    """
    followed = [one for one in trace if one.followed]
    if not followed:
        return not_checked(AUDIT, "no attack reported its loss over 20 iterates of an image that survived")
    n = max(one.followed for one in followed)
    worst = max(followed, key=_least)
    rising = f"{worst.rising:,} of {worst.followed:,} survivors"
    evidence = f"{worst.attack} at {worst.eps:g}: the loss of {rising} still rose in the last steps"
    if worst.rising < 2 or _least(worst) <= MOST:
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        evidence,
        n,
        "Take more steps, and check whether the robust accuracy falls (doubled steps).",
        serious=False,
        items=[
            f"{one.attack} at {one.eps:g}: {one.rising:,} of {one.followed:,}"
            for one in followed
            if one.rising
        ],
    )


def _least(trace: Trace) -> float:
    return wilson(trace.rising, trace.followed).low
