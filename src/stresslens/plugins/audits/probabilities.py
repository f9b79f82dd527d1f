from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._forward import few, logits_of, rounding

AUDIT = "probabilities"


def probabilities(model: nn.Module, images: tuple[Tensor, Tensor], *, tolerance: Positive = 1e-5) -> Finding:
    """The model returns probabilities instead of logits (AutoAttack's check).

    That is, rows are in [0, 1] and sum to 1 within `tolerance`, or within the rounding of the model's
    dtype, if that is more. Cross-entropy is then of a softmax
    of a softmax, whose gradient is small or zero. Logarithms of probabilities are not a sign.
    """
    x, _ = few(images)
    with attacked(model):
        logits = logits_of(model, x)
    tolerance = max(tolerance, logits.shape[1] * rounding(model))
    inside = bool((logits >= -tolerance).all() and (logits <= 1 + tolerance).all())
    sums = bool(((logits.sum(1) - 1).abs() <= tolerance).all())
    one_hot = inside and bool(((logits <= tolerance) | (logits >= 1 - tolerance)).all())
    if not (inside and sums) or logits.shape[1] < 2:
        logs = bool((logits <= tolerance).all() and ((torch.logsumexp(logits, 1)).abs() <= tolerance).all())
        if logs and logits.shape[1] > 1:
            return no_sign(
                AUDIT,
                f"the {len(x)} outputs are logarithms of probabilities, which are valid logits",
                len(x),
            )
        return no_sign(AUDIT, f"the {len(x)} outputs are not probabilities", len(x))
    what = "one-hot outputs (an argmax inside)" if one_hot else "probabilities (a softmax inside)"
    return sign(
        AUDIT,
        f"all {len(x)} outputs are in [0, 1] and sum to 1: {what}",
        len(x),
        "Return the input of the softmax. If the model cannot be changed, "
        "attack a loss of the probabilities' logarithm, or the margin.",
    )
