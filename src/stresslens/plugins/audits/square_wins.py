from __future__ import annotations

import numpy as np

from stresslens.core.evidence import Probe
from stresslens.core.types import Count, Finding
from stresslens.plugins.audits._attack_probe import FEWEST, broken_only_by, informative_radius, sign_from

AUDIT = "square wins"
THOROUGH = {"apgd": {"loss": "margin_targeted", "steps": 100}}


def square_wins(probe: Probe, *, queries: Count = 500) -> Finding:
    """The Square attack breaks images that neither the protocol nor APGD breaks: gradients mislead.

    Square (Andriushchenko et al. 2020) uses no gradients; APGD is run on the margins of all classes
    (Athalye et al. 2018). Images that APGD breaks are not counted: for them the protocol lacks
    steps or targets, but gradients are useful. A sign from two images on, serious from 3 % on.
    """
    eps, n = informative_radius(probe), len(probe.labels)
    _, images = broken_only_by(probe, [{"square": {"queries": queries}}], eps)
    evidence = (
        f"at radius {eps:g} Square ({queries} queries) breaks {len(images)} of {n} images "
        "that the protocol does not"
    )
    if len(images) >= FEWEST:
        _, reached = broken_only_by(probe, [THOROUGH], eps)
        images = np.setdiff1d(images, reached)
        evidence += f"; APGD on every margin does not break {len(images)} of them either"
    return sign_from(
        AUDIT,
        images,
        evidence,
        n,
        "Gradients mislead on this model or with this loss: attack a margin or dlr as well, from several "
        "starts, replace steps without a gradient on the backward pass (BPDA), and keep Square in the "
        "protocol.",
        serious=len(images) >= 0.03 * n,
    )
