from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from stresslens.core.maps import Maps
from stresslens.plugins.explainers._passes import Of, slopes


def saliency(
    model: nn.Module, x: Tensor, y: Tensor, *, of: Of = "logit", times: Literal["one", "image"] = "one"
) -> Maps:
    """Saliency: the largest absolute gradient of the score over the channels (Simonyan et al.
    2014).

    `times: image` multiplies the gradient with the image and adds the channels up (gradient ×
    input). That map is signed, and zero at black pixels.
    """
    slope = slopes(model, x, y, of)
    if times == "image":
        return Maps((slope * x).sum(1).float().cpu(), True, f"gradient of the {of.replace('_', ' ')} × image")
    return Maps(slope.abs().amax(1).float().cpu(), False, f"size of the {of.replace('_', ' ')}'s gradient")
