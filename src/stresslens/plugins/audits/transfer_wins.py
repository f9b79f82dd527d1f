from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import lost, middle, only_by
from stresslens.plugins.audits._finding import not_checked

AUDIT = "transfer wins"


def transfer_wins(probe: Probe) -> Finding:
    """Adversarials made on another model break images that the attack on this model itself does not
    (Athalye et al. 2018; Carlini et al. 2019). A sign from two images on."""
    if probe.surrogate is None:
        return not_checked(AUDIT, "needs another model for the same images (a surrogate)")
    eps, n = middle(probe), len(probe.labels)
    _, images = only_by(probe, ["transfer"], eps)
    said = f"at radius {eps:g} adversarials of another model break {len(images)} of {n} images that the protocol leaves"
    return lost(
        AUDIT,
        images,
        said,
        n,
        "The model hides its gradients: attack it through the surrogate as well (transfer in the protocol), and see the findings "
        "on gradients.",
    )
