from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.types import Finding
from stresslens.metrics.intervals import wilson
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "still rising"
MOST = 0.1


def still_rising(trace: Sequence[Trace]) -> Finding:
    """The loss of images that an attack could not break was still rising when it ended (Pintor et
    al. 2022, indicator 4).

    Of each survivor the best loss so far (cross-entropy by its logarithm), scaled to [0, 1] over
    its path; over the last ten steps (of fewer than 50, over a fifth of them) it should rise by at
    most 0.05. Left out are attempts of fewer than 20 iterates, and attacks that tell only the mean
    loss of a batch, as PGD does: steps that do not shrink find better ways until the end. Minor,
    from two images on, where it is beyond chance (the lower end of the 95 % interval) more than a
    tenth of the survivors. How much it costs is shown by doubling the steps.
    """
    followed = [one for one in trace if one.followed]
    if not followed:
        return not_checked(AUDIT, "no attack showed its loss over 20 iterates of an image that survived")
    n = max(one.followed for one in followed)
    worst = max(followed, key=_least)
    still = f"{worst.rising:,} of {worst.followed:,} survivors"
    said = f"{worst.attack} at {worst.eps:g}: the loss of {still} still rose in the last steps"
    if worst.rising < 2 or _least(worst) <= MOST:
        return no_sign(AUDIT, said, n)
    return sign(
        AUDIT,
        said,
        n,
        "Take more steps, and see whether the robust accuracy falls (doubled steps).",
        serious=False,
        items=[
            f"{one.attack} at {one.eps:g}: {one.rising:,} of {one.followed:,}"
            for one in followed
            if one.rising
        ],
    )


def _least(trace: Trace) -> float:
    return wilson(trace.rising, trace.followed).low
