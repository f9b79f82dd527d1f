from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.answers import predicted
from stresslens.core.attack_base import apart, attacked
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Count, Finding, Positive
from stresslens.plugins.audits._forward import few, logits_of

AUDIT = "deterministic"


def deterministic(
    model: nn.Module, images: tuple[Tensor, Tensor], *, passes: Count = 5, tolerance: Positive = 1e-4
) -> Finding:
    """Forward passes over the same images differ (AutoAttack's check for randomness).

    A sign if logits differ by more than `tolerance` of their range. A single gradient or prediction
    is then a sample, and an attack must average over passes (expectation over transformation,
    Athalye et al. 2018).
    """
    x, _ = few(images)
    with attacked(model):
        first, *others = [logits_of(model, x) for _ in range(passes)]
    far = apart(first, *others)
    moved = int((far > tolerance).sum())
    if not moved:
        return no_sign(AUDIT, f"{passes} passes over {len(x)} images agree within {tolerance:g}", len(x))
    other = torch.stack([predicted(answer) != predicted(first) for answer in others]).any(0)
    return sign(
        AUDIT,
        f"{passes} passes over the same {len(x)} images differ on {moved}, "
        f"up to {float(far.max()):.3g} of the logits' range; "
        f"{int(other.sum())} images get different classes",
        len(x),
        "Find what is random (dropout left on, random resizing, noise on the input). If it is a mistake, "
        "turn it off; if it is the defence, average gradients and predictions over about 20 passes and "
        "report it.",
    )
