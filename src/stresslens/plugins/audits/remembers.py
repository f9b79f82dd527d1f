from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import apart, attacked
from stresslens.core.copies import copied
from stresslens.core.draws import Draws
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._forward import few, logits_of

AUDIT = "remembers"


def remembers(
    model: nn.Module, images: tuple[Tensor, Tensor], *, size: Positive = 0.05, tolerance: Positive = 1e-4
) -> Finding:
    """The model's outputs depend on images that it has seen before.

    One copy of the model sees an image, another does not; then both get the image changed by `size`
    with random signs. A sign if the logits of one image differ by more than `tolerance` of their
    range, or if a pass in evaluation mode changes a buffer. The images are rotated by 180°, because
    the model may have seen them as they are.
    """
    x = few(images, 32)[0].flip(-1, -2)
    draws = Draws(1, torch.arange(len(x), device=x.device))
    near = (x + size * (2.0 * draws.integers(2, *x.shape[1:]) - 1).to(x.dtype)).clamp(0, 1)
    try:
        fresh, used = copied(model), copied(model)
    except Exception as error:  # a user's module may hold anything
        return not_checked(AUDIT, f"the model cannot be copied ({type(error).__name__})")
    with attacked(fresh), attacked(used):
        if (apart(logits_of(fresh, near), logits_of(fresh, near)) > tolerance).any():
            return not_checked(AUDIT, "the model is random (see: deterministic)")
        state = {name: value.clone() for name, value in used.state_dict().items()}
        logits_of(used, x)
        moved = int((apart(logits_of(fresh, near), logits_of(used, near)) > tolerance).sum())
        changed = [name for name, value in used.state_dict().items() if not torch.equal(value, state[name])]
    if not moved and not changed:
        return no_sign(AUDIT, f"the logits of {len(x)} images do not depend on images seen before", len(x))
    evidence = (
        f"the logits of {moved} of {len(x)} changed images depend on whether the originals were seen before"
    )
    return sign(
        AUDIT,
        evidence + (f"; a pass in evaluation mode changes {', '.join(changed[:3])}" if changed else ""),
        len(x),
        "A model's output must depend on the image alone: look for caches, running statistics and counters "
        "in its forward pass, and attack a copy without them.",
    )
