from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import broken_only_by, informative_radius, sign_from

AUDIT = "reference wins"

REFERENCE = ("fgsm", {"pgd": {"steps": 40}})
"""A protocol should not be weaker than these attacks."""


def reference_wins(probe: Probe) -> Finding:
    """FGSM, or plain PGD of 40 steps (Madry et al. 2018), breaks images that the protocol does not.

    A sign from two images on. It is serious from a twentieth of the images on, or from three images
    that the single step breaks.
    """
    eps, n = informative_radius(probe), len(probe.labels)
    counts, images = broken_only_by(probe, REFERENCE, eps)
    evidence = (
        f"at radius {eps:g} {len(images)} of {n} images that the protocol does not break are broken by "
        + " or ".join(f"{name} ({broke})" for name, broke in counts)
    )
    return sign_from(
        AUDIT,
        images,
        evidence,
        n,
        "The protocol is weaker than the simplest attack. Check its loss and its sign, the labels and the "
        "model that it gets, its steps and its radius, and that it keeps each image's best iterate; or add "
        "pgd to it.",
        serious=len(images) >= max(3, 0.05 * n) or counts[0][1] >= 3,
    )
