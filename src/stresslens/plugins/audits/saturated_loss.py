from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.answers import predicted
from stresslens.core.attack_base import attacked, margins
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._forward import few, input_gradients, logits_of

AUDIT = "saturated loss"


def saturated_loss(model: nn.Module, images: tuple[Tensor, Tensor], *, gap: Positive = 40.0) -> Finding:
    """Cross-entropy underflows in float32: its gradient is exactly zero where the margin's is not.

    The logits are too far apart (Carlini & Wagner 2017 on distillation). Serious from two images
    and 1 % on. A median margin above `gap` is a minor sign, because only the last digits of the
    gradient are left there.
    """
    x, y = few(images)
    try:
        with attacked(model):
            logits = logits_of(model, x)
            correct = predicted(logits) == y
            if int(correct.sum()) < 2:
                return not_checked(AUDIT, "fewer than two images are correct without attack")
            x, y = x[correct], y[correct]
            of_loss, of_margin = (
                input_gradients(model, x, _cross_entropy, y),
                input_gradients(model, x, margins, y),
            )
    except RuntimeError:
        return not_checked(AUDIT, "there is no gradient (see: gradient exists)")
    gone = int((~of_loss.flatten(1).any(1) & of_margin.flatten(1).any(1)).sum())
    median = float(margins(logits[correct], y).median())
    evidence = (
        f"cross-entropy has a gradient of exactly zero for {gone} of {len(x)} images "
        f"that are correct without attack; their median margin is {median:.3g}"
    )
    serious = gone >= max(2, 0.01 * len(x))
    if not serious and median <= gap:
        return no_sign(AUDIT, evidence, len(x))
    return sign(
        AUDIT,
        evidence,
        len(x),
        "Attack a loss that does not depend on the scale of the logits: dlr, dlr_targeted or a margin "
        "(apgd's auto), or divide the logits by a temperature for the attack.",
        serious=serious,
    )


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.to(torch.float32), y, reduction="none")
