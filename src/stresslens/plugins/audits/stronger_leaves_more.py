from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from stresslens.core.evidence import Row
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import (
    attacked_rows,
    comparable,
    impossible,
    least,
    of_one_model,
    out_of_order,
    same_eps,
)

AUDIT = "stronger leaves more"


def stronger_leaves_more(table: Sequence[Row]) -> Finding:
    """The same attack at the same radius leaves more images correct with more steps, restarts or
    queries.

    See Carlini et al. (2019), "verify that attacks have converged". More restarts and queries can
    only add to what is found; more steps can too if the best iterate is returned. A sign from two
    images on (one point if n is not known), serious from five images and half a point on.
    """
    pairs = [
        (weak, strong)
        for rows in of_one_model(attacked_rows(table))
        for weak, strong in permutations(rows, 2)
        if weak.attack == strong.attack
        and comparable(weak, strong)
        and same_eps(weak, strong)
        and _is_stronger(strong, weak)
    ]
    if not pairs:
        return not_checked(
            AUDIT, "the table has no attack with two numbers of steps, restarts or queries at the same radius"
        )
    wrong = [
        (weak, strong)
        for weak, strong in pairs
        if strong.accuracy - weak.accuracy >= least(weak, strong) and impossible(weak, strong)
    ]
    return out_of_order(
        AUDIT,
        pairs,
        wrong,
        "the attack with more steps, restarts or queries leaves no more correct",
        "the attack with more steps, restarts or queries leaves more correct",
        "Return the best iterate of all steps and restarts (an image is broken once any of them breaks it), "
        "attack the same images with both, and let the step shrink with their number.",
    )


def _is_stronger(strong: Row, weak: Row) -> bool:
    """Whether one row has no fewer steps, restarts and queries, as far as both say it, and more of
    one of them."""
    counts = [
        (strong.steps, weak.steps),
        (strong.queries, weak.queries),
        (strong.restarts or 1, weak.restarts or 1),
    ]
    if any((a is None) != (b is None) for a, b in counts) or (strong.step_size is None) != (
        weak.step_size is None
    ):
        return False
    known = [(a, b) for a, b in counts if a is not None and b is not None]
    return all(a >= b for a, b in known) and any(a > b for a, b in known)
