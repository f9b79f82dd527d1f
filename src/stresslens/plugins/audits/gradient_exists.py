from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.attack_base import attacked, margins
from stresslens.core.errors import first_line
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._forward import few, input_gradients

AUDIT = "gradient exists"


def gradient_exists(model: nn.Module, images: tuple[Tensor, Tensor]) -> Finding:
    """No gradient reaches the input, or the gradient is exactly zero (shattered gradients).

    The gradient is that of the true class's margin, which does not saturate as cross-entropy does.
    A sign from two images and 1 % on (Athalye et al. 2018).
    """
    x, y = few(images)
    remedy = (
        "The forward pass is cut or piecewise constant: detach(), numpy, rounding, thresholds, argmax, JPEG. "
        "Replace it by the identity or a smooth approximation on the backward pass (BPDA, Athalye et al. "
        "2018), and attack without gradients as well (square)."
    )
    try:
        with attacked(model):
            grad = input_gradients(model, x, margins, y)
    except RuntimeError as error:  # autograd raises it; other errors are the model's
        return sign(AUDIT, f"the backward pass fails: {first_line(error)}", len(x), remedy)
    flat = int((~grad.flatten(1).any(1)).sum())
    evidence = f"the margin's gradient at the input is exactly zero for {flat} of {len(x)} images"
    return (
        sign(AUDIT, evidence, len(x), remedy)
        if flat >= max(2, 0.01 * len(x))
        else no_sign(AUDIT, evidence, len(x))
    )
