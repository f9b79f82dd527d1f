from __future__ import annotations

import numpy as np

from stresslens.core.evidence import Curve
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Chance, Finding
from stresslens.plugins.audits._attack_names import attack_kind

AUDIT = "black box wins"


def black_box_wins(curve: Curve, *, share: Chance = 0.002) -> Finding:
    """Images that only an attack without gradients broke, after those with gradients had failed.

    See Athalye et al. (2018), section 3; AutoAttack warns if Square lowers the robust accuracy by
    more than 0.2 points. A sign from two images and 0.2 points on; serious from one point on.
    """
    kinds = [attack_kind(name) for name in curve.attacks]
    blind = [k for k, kind in enumerate(kinds) if kind in ("black box", "random")]
    if not blind or not set(kinds) & {"single step", "iterative", "smallest"}:
        return not_checked(AUDIT, "the protocol has no attack without gradients beside those with")
    after = [k for k in blind if any(kind in ("iterative", "smallest", "single step") for kind in kinds[:k])]
    n = len(curve.smallest)
    only = {curve.attacks[k]: int(np.count_nonzero(curve.by == k)) for k in after}
    count = sum(only.values())
    evidence = f"{count:,} of {n:,} images were broken only by an attack without gradients"
    if count < 2 or count <= share * n:
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        evidence,
        n,
        "Gradients mislead on this model. Check whether it rounds, jumps or saturates; give PGD another loss "
        "(dlr, margin), more steps and restarts; replace steps without a gradient by a smooth approximation "
        "on the backward pass (BPDA).",
        serious=count >= 0.01 * n and count >= 5,
        items=[f"{name}: {broke:,} images" for name, broke in only.items() if broke],
    )
