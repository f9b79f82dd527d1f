from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import broken_only_by, informative_radius, sign_from

AUDIT = "transfer wins"


def transfer_wins(probe: Probe) -> Finding:
    """Adversarial images of another model break images that the attack on this model does not
    break.

    See Athalye et al. (2018) and Carlini et al. (2019). A sign from two images on.
    """
    if probe.surrogate is None:
        return not_checked(AUDIT, "needs another model for the same images (a surrogate)")
    eps, n = informative_radius(probe), len(probe.labels)
    _, images = broken_only_by(probe, ["transfer"], eps)
    evidence = (
        f"at radius {eps:g} adversarial images of another model break {len(images)} of {n} images "
        "that the protocol does not"
    )
    return sign_from(
        AUDIT,
        images,
        evidence,
        n,
        "The model masks its gradients: attack it through the surrogate as well (transfer in the protocol), "
        "and see the findings on gradients.",
    )
