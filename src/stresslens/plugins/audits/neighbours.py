from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import apart, attacked
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._forward import few, logits_of

AUDIT = "neighbours"


def neighbours(model: nn.Module, images: tuple[Tensor, Tensor], *, tolerance: Positive = 1e-4) -> Finding:
    """An image's logits depend on the other images of the batch, for example by batch statistics.

    In evaluation mode, its logits alone and in a batch of 32 differ by more than `tolerance` of
    their range. One such image is a sign.
    """
    x, _ = few(images, 32)
    if len(x) < 2:
        return not_checked(AUDIT, "needs at least two images")
    with attacked(model):
        together, again = logits_of(model, x), logits_of(model, x)
        if (apart(together, again) > tolerance).any():
            return not_checked(AUDIT, "the model is random (see: deterministic)")
        with torch.no_grad():
            alone = torch.cat([model(one).float() for one in torch.split(x, 1)])
    far = apart(together, alone)
    moved = int((far > tolerance).sum())
    if not moved:
        return no_sign(AUDIT, f"the logits of {len(x)} images are the same alone and in a batch", len(x))
    return sign(
        AUDIT,
        f"the logits of {moved} of {len(x)} images depend on the batch, "
        f"by up to {float(far.max()):.3g} of their range",
        len(x),
        "Batch norm uses the batch's statistics, or the images are normalised by their batch: keep fixed "
        "statistics (track_running_stats=True, eval()); otherwise results depend on the order of the images.",
    )
