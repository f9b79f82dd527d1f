from __future__ import annotations

import numpy as np

from stresslens.core.evidence import Curve
from stresslens.core.types import Chance, Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "black box wins"


def black_box_wins(curve: Curve, *, share: Chance = 0.002) -> Finding:
    """Images that fell only to an attack without gradients, after those with gradients had failed
    (Athalye et al. 2018, section 3; AutoAttack flags Square lowering the robust accuracy by more
    than 0.2 point).

    A sign from two images and 0.2 point on; serious from one point on.
    """
    kinds = [attack_kind(name) for name in curve.attacks]
    blind = [place for place, kind in enumerate(kinds) if kind in ("black box", "random")]
    if not blind or not set(kinds) & {"single step", "iterative", "smallest"}:
        return not_checked(AUDIT, "the protocol has no attack without gradients beside those with")
    after = [
        place
        for place in blind
        if any(kind in ("iterative", "smallest", "single step") for kind in kinds[:place])
    ]
    n = len(curve.smallest)
    only = {curve.attacks[place]: int(np.count_nonzero(curve.by == place)) for place in after}
    count = sum(only.values())
    said = f"{count:,} of {n:,} images fell only to an attack without gradients"
    if count < 2 or count <= share * n:
        return no_sign(AUDIT, said, n)
    return sign(
        AUDIT,
        said,
        n,
        "Gradients mislead on this model. See whether it rounds, jumps or saturates; give PGD another loss (dlr, margin), more "
        "steps and restarts; replace what has no gradient by its smooth likeness on the backward pass (BPDA).",
        serious=count >= 0.01 * n and count >= 5,
        items=[f"{name}: {broke:,} images" for name, broke in only.items() if broke],
    )
