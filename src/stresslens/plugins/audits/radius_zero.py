from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Row
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._tables import attacked_rows, clean_of, least, row_text

AUDIT = "radius zero"


def radius_zero(table: Sequence[Row]) -> Finding:
    """Accuracy under an attack of radius 0 differs from the clean accuracy.

    An attack of radius 0 must return the image. A sign from two images on (one point if n is not
    known).
    """
    pairs = [
        (row, clean) for row in attacked_rows(table) if row.eps == 0 and (clean := clean_of(table, row.model))
    ]
    if not pairs:
        return not_checked(
            AUDIT, "the table has no attack at radius 0 on a model whose clean accuracy it gives"
        )
    wrong = [(row, clean) for row, clean in pairs if abs(row.accuracy - clean.accuracy) >= least(row, clean)]
    if not wrong:
        return no_sign(AUDIT, f"{len(pairs)} attacks of radius 0 give the clean accuracy", len(pairs))
    return sign(
        AUDIT,
        f"{len(wrong)} of {len(pairs)} attacks of radius 0 change the accuracy, by up to "
        f"{100 * max(abs(row.accuracy - clean.accuracy) for row, clean in wrong):.2f} points",
        len(pairs),
        "Compute max |x_adv - x| and compare it with the radius. Either the scored image is not the image "
        "plus a perturbation inside the ball (this happens if the attacked image is stored instead of the "
        "perturbation: clip(2x + δ)), or the model is not in evaluation mode.",
        items=[f"{row_text(row)}; {row_text(clean)}" for row, clean in wrong],
    )
