from __future__ import annotations

from collections.abc import Sequence

from stresslens.core.evidence import Trace
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, not_checked, sign

AUDIT = "zero gradients"


def zero_gradients(trace: Sequence[Trace]) -> Finding:
    """Attacks met input gradients of exactly zero, at their start or on their way (Athalye et al.
    2018; AutoAttack's check).

    A sign from two images on, serious from 1 % of those attacked. On the way only of losses that
    cannot be zero by themselves: the ratio loss (dlr) is flat where y ranks third, and those that
    stop at success are flat there.
    """
    told = [one for one in trace if one.gradients]
    if not told:
        return not_checked(AUDIT, "no attack took a gradient")
    met = [(one, max(one.zero_at_start, one.zero_on_path if _climbs(one) else 0)) for one in told]
    flat = [(one, count) for one, count in met if count >= 2]
    n = max(one.n for one in told)
    if not flat:
        return no_sign(
            AUDIT, f"{sum(one.gradients for one in told):,} gradients, of at most 1 image exactly zero", n
        )
    worst, count = max(flat, key=lambda pair: pair[1] / max(1, pair[0].n))
    return sign(
        AUDIT,
        f"{worst.attack}: of {count:,} of {worst.n:,} images a gradient was exactly zero at radius {worst.eps:g}",
        n,
        "Nothing guides the attack there. Look for rounding or thresholds of the input, a softmax inside the model, or logits so "
        "large that cross-entropy underflows in float32 (attack with dlr or a margin instead), or parts without a gradient (BPDA).",
        serious=any(count >= 0.01 * one.n for one, count in flat),
        items=[
            f"{one.attack} at {one.eps:g}: {one.zero_at_start:,} at the start, {one.zero_on_path:,} later, of {one.n:,}"
            for one, _ in flat
        ],
    )


def _climbs(trace: Trace) -> bool:
    """By the attack's own word; else, as of a result of version 0.1.0, by its name and its loss."""
    if trace.may_be_flat is not None:
        return not trace.may_be_flat
    words = f"{trace.attack} {trace.options.get('loss', '')}".lower()
    smallest = ("deepfool", "fab", "carlini")
    return not any(word in words for word in ("dlr", "margin", *smallest))
