from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import lost, middle, only_by

AUDIT = "noise wins"


def noise_wins(probe: Probe) -> Finding:
    """Random points of the ball break images that the protocol does not (Athalye et al. 2018,
    section 3: "random sampling finds adversarial examples"). A sign from two images on."""
    eps, n = middle(probe), len(probe.labels)
    _, images = only_by(probe, ["noise"], eps)
    said = f"at radius {eps:g} noise alone breaks {len(images)} of {n} images that the protocol leaves"
    return lost(
        AUDIT,
        images,
        said,
        n,
        "Gradients lead nowhere on this model, or the attack does not use its radius. See the findings on gradients and on the "
        "radius.",
    )
