from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind, targeted_success
from stresslens.plugins.audits._tables import least, out_of_order

AUDIT = "black box below"


def black_box_below(table: Sequence[Row]) -> Finding:
    """A black-box or random attack gives a lower accuracy than the best gradient attack at that
    radius.

    See Athalye et al. (2018), section 3. A sign from two images on (one point if n is not known).
    """
    pairs = []
    for blind in table:
        if attack_kind(blind.attack) not in ("black box", "random") or blind.eps == 0:
            continue
        sighted = [
            row
            for row in table
            if attack_kind(row.attack) == "iterative"
            and not targeted_success(row.attack)
            and (row.model, row.eps) == (blind.model, blind.eps)
            and not (row.norm and blind.norm and row.norm != blind.norm)
        ]
        if sighted:
            pairs.append((blind, min(sighted, key=lambda row: row.accuracy)))
    if not pairs:
        return not_checked(
            AUDIT, "the table has no attack with and without gradients on the same model at the same radius"
        )
    below = [(blind, best) for blind, best in pairs if best.accuracy - blind.accuracy >= least(blind, best)]
    return out_of_order(
        AUDIT,
        pairs,
        below,
        "the best attack with gradients gives no higher accuracy",
        "the attack without gradients is the stronger one",
        "Gradients mislead on that model, or the attack that uses them is weak: take more steps and "
        "restarts, a margin or dlr loss, or APGD; check whether the model rounds, is random, or saturates.",
    )
