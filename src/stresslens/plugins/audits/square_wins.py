from __future__ import annotations

import numpy as np

from stresslens.core.evidence import Probe
from stresslens.core.types import Count, Finding
from stresslens.plugins.audits._attack_probe import FEWEST, lost, middle, only_by

AUDIT = "square wins"
THOROUGH = {"apgd": {"loss": "margin_targeted", "steps": 100}}


def square_wins(probe: Probe, *, queries: Count = 500) -> Finding:
    """The Square attack (Andriushchenko et al. 2020), which takes no gradients, breaks images that
    neither the protocol does nor APGD at every class's margin: gradients mislead (Athalye et al.
    2018).

    Images that APGD breaks after all say that the protocol is short of steps or targets, not that
    gradients are useless. A sign from two images on, serious from 3 %.
    """
    eps, n = middle(probe), len(probe.labels)
    _, images = only_by(probe, [{"square": {"queries": queries}}], eps)
    said = f"at radius {eps:g} Square ({queries} queries) breaks {len(images)} of {n} images that the protocol leaves"
    if len(images) >= FEWEST:
        _, reached = only_by(probe, [THOROUGH], eps)
        images = np.setdiff1d(images, reached)
        said += f", {len(images)} of them beyond APGD at every margin too"
    return lost(
        AUDIT,
        images,
        said,
        n,
        "Gradients mislead on this model or with this loss: attack a margin or dlr as well, from several starts, replace what has "
        "no gradient on the backward pass (BPDA), and keep Square in the protocol.",
        serious=len(images) >= 0.03 * n,
    )
