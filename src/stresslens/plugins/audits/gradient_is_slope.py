from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked, margins
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._forward import answers, few, slopes

AUDIT = "gradient is slope"


def gradient_is_slope(
    model: nn.Module, images: tuple[Tensor, Tensor], *, sizes: tuple[float, ...] = (0.001, 0.004)
) -> Finding:
    """The gradient at the input does not say how the answer changes: along its sign, both ways, the
    margin must move by about what the gradient promises (a central difference at one of `sizes`, in
    pixel units).

    Of a network of straight pieces the two agree nearly everywhere. A sign where for more than half
    of the images the margin moves by less than a third or more than thrice of what is promised, or
    the other way.
    """
    x, y = few(images, 64)
    try:
        with attacked(model):
            if (answers(model, x) != answers(model, x)).any():
                return not_checked(AUDIT, "the model is random (see: deterministic)")
            grad = slopes(model, x, margins, y)
            ratios = []
            for size in sizes:
                up, down = x + size * grad.sign(), x - size * grad.sign()
                moved = (margins(answers(model, up), y) - margins(answers(model, down), y)) / (2 * size)
                ratios.append(moved / grad.abs().flatten(1).sum(1))
    except RuntimeError:
        return not_checked(AUDIT, "there is no gradient (see: gradient exists)")
    told = grad.flatten(1).any(1)
    if int(told.sum()) < 2:
        return not_checked(AUDIT, "the gradient is zero (see: gradient exists)")
    ratio = torch.stack(ratios)[:, told]
    off = (~((ratio > 1 / 3) & (ratio < 3))).all(0)
    backwards = int((ratio < 0).all(0).sum())
    said = (
        f"for {int(off.sum())} of {int(told.sum())} images the margin does not move along the gradient as that promises "
        f"(median {float(ratio[0].median()):.3g} of it; {backwards} the other way)"
    )
    if int(off.sum()) < 2 or 2 * int(off.sum()) <= int(told.sum()):
        return no_sign(AUDIT, said, int(told.sum()))
    return sign(
        AUDIT,
        said,
        int(told.sum()),
        "A backward pass of one's own does not fit the forward one, or the model jumps where its gradient is smooth. Check the "
        "operator with torch.autograd.gradcheck; if the likeness is meant (BPDA), confirm the figures without gradients (square).",
    )
