from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import apart, attacked
from stresslens.core.types import Count, Finding, Positive
from stresslens.plugins.audits._finding import no_sign, sign
from stresslens.plugins.audits._forward import answers, few

AUDIT = "deterministic"


def deterministic(
    model: nn.Module, images: tuple[Tensor, Tensor], *, passes: Count = 5, tolerance: Positive = 1e-4
) -> Finding:
    """Forward passes over the same images disagree: a sign where they do by more than `tolerance`
    of the range of an image's logits (AutoAttack's check).

    Then one gradient and one verdict are samples: an attack must average over passes (expectation
    over transformation, Athalye et al. 2018).
    """
    x, _ = few(images)
    with attacked(model):
        first, *others = [answers(model, x) for _ in range(passes)]
    far = apart(first, *others)
    moved = int((far > tolerance).sum())
    if not moved:
        return no_sign(AUDIT, f"{passes} passes over {len(x)} images agree within {tolerance:g}", len(x))
    other = torch.stack([answer.argmax(1) != first.argmax(1) for answer in others]).any(0)
    return sign(
        AUDIT,
        f"{passes} passes over the same {len(x)} images differ on {moved}, up to {float(far.max()):.3g} of the logits' range; "
        f"{int(other.sum())} images are taken for different classes",
        len(x),
        "Find what is random (dropout left on, random resizing, noise on the input). If it is not meant, turn it off; if it is the "
        "defence, average gradients and verdicts over about 20 passes and say so.",
    )
