from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.attack_base import attacked, margins
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._forward import answers, few, slopes

AUDIT = "saturated loss"


def saturated_loss(model: nn.Module, images: tuple[Tensor, Tensor], *, gap: Positive = 40.0) -> Finding:
    """Logits so far apart that cross-entropy underflows in float32: its gradient is exactly zero
    where the margin's is not (Carlini & Wagner 2017 on distillation). Serious from two images and 1
    % on; a median margin above `gap` is a minor sign, since only the last digits of the gradient
    are left there."""
    x, y = few(images)
    try:
        with attacked(model):
            logits = answers(model, x)
            right = logits.argmax(1) == y
            if int(right.sum()) < 2:
                return not_checked(AUDIT, "fewer than two images are right unattacked")
            x, y = x[right], y[right]
            of_loss, of_margin = slopes(model, x, _cross_entropy, y), slopes(model, x, margins, y)
    except RuntimeError:
        return not_checked(AUDIT, "there is no gradient (see: gradient exists)")
    gone = int((~of_loss.flatten(1).any(1) & of_margin.flatten(1).any(1)).sum())
    middle = float(margins(logits[right], y).median())
    said = (
        f"cross-entropy has a gradient of exactly zero for {gone} of {len(x)} images right unattacked; their median margin is "
        f"{middle:.3g}"
    )
    serious = gone >= max(2, 0.01 * len(x))
    if not serious and middle <= gap:
        return no_sign(AUDIT, said, len(x))
    return sign(
        AUDIT,
        said,
        len(x),
        "Attack a loss that does not depend on the scale of the logits: dlr, dlr_targeted or a margin (apgd's auto), or divide "
        "the logits by a temperature for the attack.",
        serious=serious,
    )


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits.to(torch.float32), y, reduction="none")
