from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.draws import Draws
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.gradient_free import why_no_gradient
from stresslens.core.types import Finding
from stresslens.plugins.audits._forward import COARSE, few, logits_of, resolving

AUDIT = "staircase"


def staircase(
    model: nn.Module, images: tuple[Tensor, Tensor], *, sizes: tuple[float, ...] = (1e-5, 1e-4)
) -> Finding:
    """Small changes of the image do not change the logits at all: the input is rounded.

    It may be rounded to levels, to bits or by a threshold. Random signs of each of `sizes` are
    added to every pixel, inside the box. A sign if one of them changes no logit of at least half of
    the images: gradients are then zero, or come from an approximation. A model of lower precision
    than float32 is checked as a copy in float32. Minor for a model without a gradient, such as
    nearest neighbours, whose scores are counts of votes.
    """
    x, _ = few(images, 64)
    if len(x) < 2:
        return not_checked(AUDIT, "needs at least two images")
    fine = resolving(model, x)
    if fine is None:
        return not_checked(AUDIT, COARSE)
    model = fine
    draws = Draws(0, torch.arange(len(x), device=x.device))
    with attacked(model):
        before, counts = logits_of(model, x), []
        for size in sizes:
            step = size * (2.0 * draws.integers(2, *x.shape[1:]) - 1).to(x.dtype)
            counts.append(int((logits_of(model, (x + step).clamp(0, 1)) == before).all(1).sum()))
    count = max(counts)
    evidence = (
        f"changes of {sizes[counts.index(count)]:g} in every pixel do not change the logits "
        f"of {count} of {len(x)} images at all"
    )
    if count < 2 or 2 * count < len(x):
        return no_sign(AUDIT, evidence, len(x))
    if what := why_no_gradient(model):
        return sign(
            AUDIT,
            evidence,
            len(x),
            f"The model is {what}, which may answer in steps (votes of neighbours or of trees). An attack "
            "that goes by its scores (square) is blind on a step, so attack by its decisions as well, and "
            "take larger radii.",
            serious=False,
        )
    return sign(
        AUDIT,
        evidence,
        len(x),
        "The input is rounded before the network gets it. Pass the gradient straight through the rounding "
        "(BPDA), use steps larger than its levels, and attack without gradients too (square).",
    )
