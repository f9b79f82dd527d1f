from __future__ import annotations

import math
from collections.abc import Sequence

from stresslens.core.evidence import CLEAN, Row
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._tables import attacked_rows, least, out_of_order

AUDIT = "hardening backfires"
UNKNOWN = 0.02


def hardening_backfires(table: Sequence[Row]) -> Finding:
    """An adversarially trained model is less robust than one trained on clean images.

    They are compared under the same attack at the same radius. A sign if the difference is more
    than twice its standard error over n images (two points if n is not known). It is serious under
    the kind of attack that the model was trained on, and minor under others.
    """
    rows = attacked_rows(table)
    plain = [row for row in rows if row.trained == CLEAN]
    pairs = [
        (hard, base)
        for base in plain
        for hard in rows
        if hard.trained not in ("", CLEAN)
        and (hard.attack, hard.eps, hard.norm, hard.steps, hard.score)
        == (base.attack, base.eps, base.norm, base.steps, base.score)
        and hard.eps > 0
    ]
    if not pairs:
        return not_checked(
            AUDIT,
            "the table does not have a model trained on clean images and an adversarially trained one "
            "under the same attack",
        )
    worse = [
        (hard, base)
        for hard, base in pairs
        if base.accuracy - hard.accuracy > max(_noise(hard, base), least(hard, base))
    ]
    return out_of_order(
        AUDIT,
        pairs,
        worse,
        "the adversarially trained model is at least as robust as the plain one",
        "the adversarially trained model is less robust than the plain one",
        "Compare the clean accuracies and the training losses first: the adversarially trained model may be "
        "under-trained (train until the loss is flat) or catastrophically overfitted (monitor PGD during "
        "training). Then test the attack of its training separately.",
        serious=any(attack_kind(hard.attack) == attack_kind(hard.trained) for hard, _ in worse),
    )


def _noise(a: Row, b: Row) -> float:
    if not a.n or not b.n:
        return UNKNOWN
    return 2 * math.sqrt(a.accuracy * (1 - a.accuracy) / a.n + b.accuracy * (1 - b.accuracy) / b.n)
