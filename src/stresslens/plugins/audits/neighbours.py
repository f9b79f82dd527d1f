from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import apart, attacked
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._forward import ROUNDINGS, few, logits_of, recomputed, rounding

AUDIT = "neighbours"
ROUGHLY, SMALLER = 0.05, 1000
"""The copy in float64 answers the same within this share of the range. A difference is rounding if it
is so many times as small there."""


def neighbours(model: nn.Module, images: tuple[Tensor, Tensor], *, tolerance: Positive = 1e-4) -> Finding:
    """An image's logits depend on the other images of the batch, for example by batch statistics.

    In evaluation mode, its logits alone and in a batch of 32 differ by more than `tolerance` of
    their range. One such image is a sign, unless it is rounding: kernels add in another order for
    another batch size. If a copy of the model can be computed in float64, rounding is at most a
    thousandth there of what it was. If not, differences below ten tolerances are a minor sign.
    """
    x, _ = few(images, 32)
    if len(x) < 2:
        return not_checked(AUDIT, "needs at least two images")
    with attacked(model):
        together, again = logits_of(model, x), logits_of(model, x)
        if (apart(together, again) > tolerance).any():
            return not_checked(AUDIT, "the model is random (see: deterministic)")
        far = _alone_and_together(model, x)
    moved, most = int((far > tolerance).sum()), float(far.max())
    if not moved:
        return no_sign(AUDIT, f"the logits of {len(x)} images are the same alone and in a batch", len(x))
    exact = recomputed(model, x, torch.float64, ROUGHLY)
    if exact is not None:
        with attacked(exact):
            left = float(_alone_and_together(exact, x.double()).max())
        if left <= most / SMALLER:
            return no_sign(
                AUDIT,
                f"alone and in a batch the logits of {len(x)} images differ by up to {most:.2g} of their "
                f"range, and by {left:.2g} in float64: rounding",
                len(x),
            )
    return sign(
        AUDIT,
        f"the logits of {moved} of {len(x)} images depend on the batch, "
        f"by up to {float(far.max()):.3g} of their range",
        len(x),
        "Batch norm uses the batch's statistics, or the images are normalised by their batch: keep fixed "
        "statistics (track_running_stats=True, eval()); otherwise results depend on the order of the images.",
        serious=exact is not None or most > max(10 * tolerance, ROUNDINGS * rounding(model)),
    )


def _alone_and_together(model: nn.Module, x: Tensor) -> Tensor:
    """(N,) how far (`apart`) the logits of each image alone are from those in a batch."""
    return apart(logits_of(model, x), torch.cat([logits_of(model, one) for one in torch.split(x, 1)]))
