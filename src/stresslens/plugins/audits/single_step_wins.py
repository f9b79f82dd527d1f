from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind, targeted_success
from stresslens.plugins.audits._finding import not_checked
from stresslens.plugins.audits._tables import least, out_of_order, serious

AUDIT = "single step wins"
FEWEST = 3


def single_step_wins(table: Sequence[Row]) -> Finding:
    """An iterative attack leaves more right than one step at the same radius (Athalye et al. 2018,
    section 3; Carlini et al. 2019).

    A sign from three images on (one point where n is not known): many steps can always do what one
    step does, but those that start at random miss an image or two that it hits, as 1 of 200 sound
    results showed with two of 128.
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
        "the iterative attack leaves no more right than the single step",
        "the iterative attack is weaker than the single step",
        "Check what the iterative attack keeps between its steps: the perturbation, or (a known mistake) the attacked image in its "
        "place; that it steps up the loss, is projected onto the ball around the clean image, and returns its best iterate. Its "
        "figures, and those of models trained with it, do not hold until then.",
        serious=any(serious(many.accuracy - one.accuracy, one, many) for one, many in wrong),
    )
