from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import apart, attacked
from stresslens.core.draws import Draws
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._finding import no_sign, not_checked, sign
from stresslens.plugins.audits._forward import answers, few

AUDIT = "remembers"


def remembers(
    model: nn.Module, images: tuple[Tensor, Tensor], *, size: Positive = 0.05, tolerance: Positive = 1e-4
) -> Finding:
    """Answers depend on what the model has seen before: a copy that has just seen an image answers
    a changed one (by `size`, random signs) otherwise than a copy that has not, or a pass in
    evaluation mode changes the model's buffers.

    One such image or buffer is a sign. The images are turned by half a turn, since the model may
    have seen them as they are.
    """
    x = few(images, 32)[0].flip(-1, -2)
    draws = Draws(1, torch.arange(len(x), device=x.device))
    near = (x + size * (2.0 * draws.integers(2, *x.shape[1:]) - 1).to(x.dtype)).clamp(0, 1)
    try:
        fresh, used = deepcopy(model), deepcopy(model)
    except Exception as error:  # a module of the user's own may hold anything
        return not_checked(AUDIT, f"the model cannot be copied ({type(error).__name__})")
    with attacked(fresh), attacked(used):
        if (apart(answers(fresh, near), answers(fresh, near)) > tolerance).any():
            return not_checked(AUDIT, "the model is random (see: deterministic)")
        state = {name: value.clone() for name, value in used.state_dict().items()}
        answers(used, x)
        moved = int((apart(answers(fresh, near), answers(used, near)) > tolerance).sum())
        changed = [name for name, value in used.state_dict().items() if not torch.equal(value, state[name])]
    if not moved and not changed:
        return no_sign(AUDIT, f"{len(x)} images are answered the same, whatever was seen before", len(x))
    said = (
        f"the answers for {moved} of {len(x)} changed images depend on whether the originals were seen before"
    )
    return sign(
        AUDIT,
        said + (f"; a pass in evaluation mode changes {', '.join(changed[:3])}" if changed else ""),
        len(x),
        "A model must answer an image from the image alone: look for caches, running statistics and counters in its forward pass, "
        "and attack a copy without them.",
    )
