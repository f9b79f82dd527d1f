from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked, margins
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._forward import COARSE, few, input_gradients, logits_of, resolving

AUDIT = "gradient is slope"


def gradient_is_slope(
    model: nn.Module, images: tuple[Tensor, Tensor], *, sizes: tuple[float, ...] = (0.001, 0.004)
) -> Finding:
    """The gradient at the input does not predict how the margin changes.

    The margin's change along the gradient's sign, a central difference at one of `sizes` (pixel
    units), is compared with the gradient. For a piecewise linear network the two agree nearly
    everywhere. A sign if, for more than half of the images, the change is less than a third or more
    than three times the predicted one, or has the opposite sign. A model of lower precision than
    float32 is checked as a copy in float32.
    """
    x, y = few(images, 64)
    fine = resolving(model, x)
    if fine is None:
        return not_checked(AUDIT, COARSE)
    model = fine
    try:
        with attacked(model):
            if (logits_of(model, x) != logits_of(model, x)).any():
                return not_checked(AUDIT, "the model is random (see: deterministic)")
            grad = input_gradients(model, x, margins, y)
            ratios = []
            for size in sizes:
                up, down = x + size * grad.sign(), x - size * grad.sign()
                moved = (margins(logits_of(model, up), y) - margins(logits_of(model, down), y)) / (2 * size)
                ratios.append(moved / grad.abs().flatten(1).sum(1))
    except RuntimeError:
        return not_checked(AUDIT, "there is no gradient (see: gradient exists)")
    nonzero = grad.flatten(1).any(1)
    if int(nonzero.sum()) < 2:
        return not_checked(AUDIT, "the gradient is zero (see: gradient exists)")
    ratio = torch.stack(ratios)[:, nonzero]
    off = (~((ratio > 1 / 3) & (ratio < 3))).all(0)
    backwards = int((ratio < 0).all(0).sum())
    evidence = (
        f"for {int(off.sum())} of {int(nonzero.sum())} images the margin does not change as the gradient "
        f"predicts (median {float(ratio[0].median()):.3g} of it; {backwards} in the opposite direction)"
    )
    if int(off.sum()) < 2 or 2 * int(off.sum()) <= int(nonzero.sum()):
        return no_sign(AUDIT, evidence, int(nonzero.sum()))
    return sign(
        AUDIT,
        evidence,
        int(nonzero.sum()),
        "A custom backward pass does not fit the forward pass, or the model jumps where its gradient is "
        "smooth. Check the operator with torch.autograd.gradcheck; if the approximation is intended "
        "(BPDA), confirm the figures without gradients (square).",
    )
