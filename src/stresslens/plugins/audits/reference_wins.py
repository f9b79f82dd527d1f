from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import lost, middle, only_by

AUDIT = "reference wins"

REFERENCE = ("fgsm", {"pgd": {"steps": 40}})
"""What a protocol should never be weaker than."""


def reference_wins(probe: Probe) -> Finding:
    """One gradient step, or plain PGD of 40 steps (Madry et al. 2018), breaks images that the
    protocol does not.

    A sign from two images on, serious from a twentieth of the images, or from three that a single
    step breaks after an attack of many.
    """
    eps, n = middle(probe), len(probe.labels)
    each, images = only_by(probe, REFERENCE, eps)
    said = f"at radius {eps:g} {len(images)} of {n} images that the protocol leaves fall to " + " or ".join(
        f"{name} ({broke})" for name, broke in each
    )
    return lost(
        AUDIT,
        images,
        said,
        n,
        "The protocol is weaker than the plainest attack. Check its loss and its sign, the labels and the model that it is given, "
        "its steps and its radius, and that it keeps each image's best iterate; or add pgd to it.",
        serious=len(images) >= max(3, 0.05 * n) or each[0][1] >= 3,
    )
