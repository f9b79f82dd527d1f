from __future__ import annotations

from collections.abc import Sequence

import torch

from stresslens.audits._finding import no_sign, not_checked, sign
from stresslens.core.evidence import Trace
from stresslens.core.types import Finding

AUDIT = "still rising"


def still_rising(trace: Sequence[Trace], *, last: int = 10, flat: float = 0.05, least: int = 20) -> Finding:
    """The loss of images that an attack could not break was still rising when it ended (Pintor et al. 2022, indicator 4).

    Of each survivor the best loss so far, a positive one (cross-entropy) by its logarithm, scaled to [0, 1] over its path; over the
    `last` steps (of fewer than 50, over a fifth of them) it should rise by at most `flat`.
    Attempts of fewer than `least` iterates are left out. Minor, from two images and a tenth of the survivors on: how much it costs
    is shown by doubling the steps.
    """
    rising = [(one, *found) for one in trace if (found := _rising(one, last, flat, least)) is not None]
    if not rising:
        return not_checked(AUDIT, f"no attack showed its loss over {least} iterates of an image that survived")
    n = max(of for _, _, of in rising)
    worst, count, of = max(rising, key=lambda found: found[1] / found[2])
    said = f"{worst.attack} at {worst.eps:g}: the loss of {count:,} of {of:,} survivors still rose in the last steps"
    if count < 2 or count < 0.1 * of:
        return no_sign(AUDIT, said, n)
    return sign(
        AUDIT,
        said,
        n,
        "Take more steps, and see whether the robust accuracy falls (doubled steps).",
        serious=False,
        items=[f"{one.attack} at {one.eps:g}: {count:,} of {of:,}" for one, count, of in rising if count],
    )


def _rising(trace: Trace, last: int, flat: float, least: int) -> tuple[int, int] | None:
    """Of how many survivors the loss was still rising, and how many there are."""
    if len(trace.losses) < least:
        return None
    final = torch.unique(trace.losses[-1][0])
    paths = []
    for rows, loss in trace.losses:
        at = torch.full((int(max(final.max(), rows.max())) + 1,), -torch.inf, dtype=torch.float64, device=rows.device)
        at.scatter_reduce_(0, rows, loss.double(), "amax")
        paths.append(at[final])
    path = torch.stack(paths).cummax(0).values  # (iterates, survivors)
    path = path[:, torch.isfinite(path).all(0)]
    if not path.shape[1]:
        return None
    if bool((path > 0).all()):
        path = path.log()  # of an image that is right cross-entropy falls exponentially with the margin
    spread = (path[-1] - path[0]).clamp_min(1e-12)
    last = min(last, len(path) // 5)
    late = (path[-1] - path[-last - 1]) / spread
    return int(((late > flat) & (path[-1] > path[0] + 1e-6)).sum()), path.shape[1]
