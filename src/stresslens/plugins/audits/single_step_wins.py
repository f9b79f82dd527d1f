from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind, targeted_success
from stresslens.plugins.audits._tables import least, out_of_order

AUDIT = "single step wins"
FEWEST = 3


def single_step_wins(table: Sequence[Row]) -> Finding:
    """An iterative attack gives a higher accuracy than a single step at the same radius.

    See Athalye et al. (2018), section 3, and Carlini et al. (2019). A sign from three images on
    (one point if n is not known). Fewer may be chance: an attack with random starts can miss one or
    two images that a single step breaks; this happened in 1 of 200 sound results, with two of 128
    images.
    """
    pairs = [
        (one, many)
        for one in table
        for many in table
        if attack_kind(one.attack) == "single step"
        and attack_kind(many.attack) == "iterative"
        and (one.model, one.eps) == (many.model, many.eps)
        and one.eps > 0
        and not (one.norm and many.norm and one.norm != many.norm)
        and (many.steps or 2) > 1
        and not targeted_success(many.attack)
    ]
    if not pairs:
        return not_checked(
            AUDIT, "the table has no single-step and iterative attack on the same model at the same radius"
        )
    wrong = [
        (one, many) for one, many in pairs if many.accuracy - one.accuracy >= least(one, many, images=FEWEST)
    ]
    return out_of_order(
        AUDIT,
        pairs,
        wrong,
        "the iterative attack gives no higher accuracy than the single step",
        "the iterative attack is weaker than the single step",
        "Check that the iterative attack stores the perturbation between its steps, and not the attacked "
        "image instead of it (a known mistake); that it increases the loss, is projected onto the ball "
        "around the clean image, and returns its best iterate. Until then, its figures, and those of "
        "models trained with it, are not valid.",
    )
