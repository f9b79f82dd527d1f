"""Shared by audits that run attacks: the radius to attack at, and images that only some attacks
break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.evidence import Probe
from stresslens.core.findings import no_sign, sign
from stresslens.core.progress import advance
from stresslens.core.types import Finding

RUNGS = 4
FEWEST = 2
"""Fewest images for a sign; a single image that another attack breaks may be chance."""


def ladder(probe: Probe) -> dict[float, NDArray[np.bool_]]:
    """Which images the protocol breaks at up to `RUNGS` evenly spaced radii, each attacked
    separately."""
    chosen = np.unique(np.linspace(0, len(probe.radii) - 1, RUNGS).round().astype(int))
    rungs = {}
    for done, eps in enumerate(probe.radii[k] for k in chosen):
        advance("attacks at several radii", done, len(chosen))
        rungs[eps] = probe.broken(probe.protocol, eps)[0]
    return rungs


def informative_radius(probe: Probe) -> float:
    """The radius of the ladder at which the protocol breaks closest to half of the images.

    Differences between attacks show best there.
    """
    rungs = ladder(probe)
    return min(rungs, key=lambda eps: (abs(float(rungs[eps].mean()) - 0.5), -eps))


def broken_only_by(
    probe: Probe, others: Sequence[Any], eps: float
) -> tuple[list[tuple[str, int]], NDArray[np.int64]]:
    """Images that other attacks break at a radius, and the protocol does not.

    Returns the name of each other attack with the number of images that it breaks, and the images'
    positions among those of the result.
    """
    before, done = probe.broken(probe.protocol, eps)
    after, traces = probe.broken([*probe.protocol, *others], eps)
    return [(trace.attack, trace.broke) for trace in traces[len(done) :]], probe.positions[after & ~before]


def sign_from(
    audit: str, images: NDArray[np.int64], evidence: str, n: int, remedy: str, *, serious: bool = True
) -> Finding:
    """A sign if at least `FEWEST` images were broken that should not be; `images` are positions."""
    if len(images) < FEWEST:
        return no_sign(audit, evidence, n)
    return sign(audit, evidence, n, remedy, serious=serious, items=[f"image {listed(images)}"])


def listed(images: NDArray[np.int64], many: int = 8) -> str:
    """Positions of images as text; of more than `many` the first."""
    shown = ", ".join(map(str, images[:many]))
    return f"{shown}, …" if len(images) > many else shown
