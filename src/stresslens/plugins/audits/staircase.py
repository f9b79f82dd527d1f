from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.draws import Draws
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._forward import answers, few

AUDIT = "staircase"


def staircase(
    model: nn.Module, images: tuple[Tensor, Tensor], *, sizes: tuple[float, ...] = (1e-5, 1e-4)
) -> Finding:
    """Small changes of the image leave the logits exactly as they are: the input is rounded (to
    levels, bits or a threshold).

    Random signs of each of `sizes` on every pixel, inside the box. A sign where one of them leaves
    every logit of half of the images or more: gradients are zero, or come from a likeness put in
    their place.
    """
    x, _ = few(images, 64)
    if len(x) < 2:
        return not_checked(AUDIT, "takes at least two images")
    draws = Draws(0, torch.arange(len(x), device=x.device))
    with attacked(model):
        before, counts = answers(model, x), []
        for size in sizes:
            step = size * (2.0 * draws.integers(2, *x.shape[1:]) - 1).to(x.dtype)
            counts.append(int((answers(model, (x + step).clamp(0, 1)) == before).all(1).sum()))
    count = max(counts)
    said = (
        f"changes of {sizes[counts.index(count)]:g} in every pixel leave the logits of {count} of {len(x)} images exactly as they "
        "are"
    )
    if count < 2 or 2 * count < len(x):
        return no_sign(AUDIT, said, len(x))
    return sign(
        AUDIT,
        said,
        len(x),
        "The input is rounded before the network sees it. Pass the gradient straight through the rounding (BPDA), use steps "
        "larger than its levels, and attack without gradients too (square).",
    )
