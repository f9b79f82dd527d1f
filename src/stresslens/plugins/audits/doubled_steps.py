from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.findings import not_checked
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import broken_only_by, informative_radius, sign_from

AUDIT = "doubled steps"


def doubled_steps(probe: Probe) -> Finding:
    """The protocol has not converged: with twice the steps or queries its attacks break more
    images.

    See Carlini et al. (2019). A sign from two images on; serious from a twentieth of the images on.
    """
    if not probe.longer:
        return not_checked(AUDIT, "no attack of the protocol takes steps")
    eps, n = informative_radius(probe), len(probe.labels)
    _, images = broken_only_by(probe, probe.longer, eps)
    evidence = f"at radius {eps:g} twice the steps break {len(images)} of {n} images more"
    return sign_from(
        AUDIT,
        images,
        evidence,
        n,
        "Double the steps until fewer than two further images are broken, "
        "or take an attack that adapts its step size (apgd).",
        serious=len(images) >= max(3, 0.05 * n),
    )
