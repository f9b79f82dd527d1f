from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Finding

AUDIT = "zero gradients"


def zero_gradients(trace: Sequence[Trace]) -> Finding:
    """Input gradients of attacks were exactly zero, at the start or later (AutoAttack's check).

    See Athalye et al. (2018). A sign from two images on, serious from 1 % of the attacked images
    on. Later gradients count only for losses that are not flat by design: the ratio loss (dlr) is
    flat where y ranks third, and losses that stop at success are flat there.
    """
    attempts = [one for one in trace if one.gradients]
    if not attempts:
        return not_checked(AUDIT, "no attack took a gradient")
    counts = [
        (one, max(one.zero_at_start, 0 if _flat_by_design(one) else one.zero_on_path)) for one in attempts
    ]
    flat = [(one, count) for one, count in counts if count >= 2]
    n = max(one.n for one in attempts)
    if not flat:
        return no_sign(
            AUDIT, f"{sum(one.gradients for one in attempts):,} gradients, of at most 1 image exactly zero", n
        )
    worst, count = max(flat, key=lambda pair: pair[1] / max(1, pair[0].n))
    return sign(
        AUDIT,
        f"{worst.attack}: for {count:,} of {worst.n:,} images a gradient was exactly zero "
        f"at radius {worst.eps:g}",
        n,
        "The attack has no direction there. Look for rounding or thresholds of the input, a softmax inside "
        "the model, logits so large that cross-entropy underflows in float32 (attack with dlr or a margin "
        "instead), or parts without a gradient (BPDA).",
        serious=any(count >= 0.01 * one.n for one, count in flat),
        items=[
            f"{one.attack} at {one.eps:g}: {one.zero_at_start:,} at the start, "
            f"{one.zero_on_path:,} later, of {one.n:,}"
            for one, _ in flat
        ],
    )


def _flat_by_design(trace: Trace) -> bool:
    """By the attack's own answer; for a result of version 0.1.0 by its name and its loss."""
    if trace.may_be_flat is not None:
        return trace.may_be_flat
    words = f"{trace.attack} {trace.options.get('loss', '')}".lower()
    minimum_norm = ("deepfool", "fab", "carlini")
    return any(word in words for word in ("dlr", "margin", *minimum_norm))
