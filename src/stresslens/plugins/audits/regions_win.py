from __future__ import annotations

import numpy as np

from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, not_checked, sign
from stresslens.core.types import Count, Finding
from stresslens.plugins.audits._attack_names import attack_kind
from stresslens.plugins.audits._attack_probe import FEWEST, informative_radius, listed

AUDIT = "regions win"
REGIONS = "linear_regions"
GRADIENT = ("single step", "iterative", "smallest")
"""Kinds of attacks that use gradients."""
THOROUGH = {"apgd": {"loss": "margin_targeted", "steps": 100}}


def regions_win(probe: Probe, *, starts: Count = 32, chains: Count = 8) -> Finding:
    """Random points of the whole box lead to boundaries that gradients near the images do not show.

    `linear_regions` (Croce, Rauber & Hein 2020) is run on the images that all other attacks of the
    protocol leave; then, on what it breaks, APGD on the margins of all classes. What APGD breaks is
    not counted: for these images the protocol lacks steps or targets, but gradients are useful. A
    sign from two images on, serious from four images and 4 %. It is a sign even where the protocol
    has `linear_regions` itself: a boundary that only random points find may have been missed
    elsewhere.
    """
    others = [attack for attack in probe.protocol if attack.function.__name__ != REGIONS]
    if not any(attack_kind(attack.function.__name__) in GRADIENT for attack in others):
        return not_checked(AUDIT, "the protocol has no attack that uses gradients")
    eps, n = informative_radius(probe), len(probe.labels)
    before, _ = probe.broken(others, eps)
    after, _ = probe.broken([*others, {REGIONS: {"starts": starts, "chains": chains}}], eps)
    images = np.flatnonzero(after & ~before)
    evidence = (
        f"at radius {eps:g}, {REGIONS} ({starts} random points an image) breaks {len(images)} of {n} images "
        "that the other attacks do not"
    )
    if len(images) >= FEWEST:
        reached, _ = probe.broken([*others, THOROUGH], eps)
        images = np.setdiff1d(images, np.flatnonzero(reached))
        evidence += f"; APGD on every margin does not break {len(images)} of them either"
    if len(images) < FEWEST:
        return no_sign(AUDIT, evidence, n)
    return sign(
        AUDIT,
        evidence,
        n,
        "More attacks find more: gradients near the images lead away from the nearest boundary, or are zero. "
        "Attack with the protocol standard, or with more starts (linear_regions: {starts: 1000}), until no "
        "more images fall; where they go on falling, the robust accuracy is an upper bound only.",
        serious=len(images) >= max(4, 0.04 * n),
        items=[f"image {listed(images)}"],
    )
