from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import broken_only_by, informative_radius, sign_from

AUDIT = "noise wins"


def noise_wins(probe: Probe) -> Finding:
    """Random points of the ball break images that the protocol does not break.

    See Athalye et al. (2018), section 3: "random sampling finds adversarial examples". A sign from
    two images on.
    """
    eps, n = informative_radius(probe), len(probe.labels)
    _, images = broken_only_by(probe, ["noise"], eps)
    evidence = f"at radius {eps:g} noise alone breaks {len(images)} of {n} images that the protocol does not"
    return sign_from(
        AUDIT,
        images,
        evidence,
        n,
        "Gradients mislead on this model, or the attack does not use its radius. "
        "See the findings on gradients and on the radius.",
    )
