"""What the audits that attack share: at which radius to look, and who broke what others did not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, sign

RUNGS = 4
FEWEST = 2
"""A single image that another attack breaks may be chance."""


def ladder(probe: Probe) -> dict[float, NDArray[np.bool_]]:
    """Which images the protocol breaks at up to `RUNGS` of the radii, spread evenly, each by itself."""
    places = np.unique(np.linspace(0, len(probe.radii) - 1, RUNGS).round().astype(int))
    return {probe.radii[place]: probe.broken(probe.protocol, probe.radii[place])[0] for place in places}


def middle(probe: Probe) -> float:
    """The radius of the ladder at which the protocol breaks nearest to half of the images: there is
    most to tell."""
    rungs = ladder(probe)
    return min(rungs, key=lambda eps: abs(float(rungs[eps].mean()) - 0.5))


def only_by(
    probe: Probe, others: Sequence[Any], eps: float
) -> tuple[list[tuple[str, int]], NDArray[np.int64]]:
    """How many of the images that the protocol leaves at a radius each of the other attacks breaks,
    and which images those are."""
    before, done = probe.broken(probe.protocol, eps)
    after, traces = probe.broken([*probe.protocol, *others], eps)
    return [(trace.attack, trace.broke) for trace in traces[len(done) :]], np.flatnonzero(after & ~before)


def lost(
    audit: str, images: NDArray[np.int64], evidence: str, n: int, remedy: str, *, serious: bool = True
) -> Finding:
    """A sign where at least `FEWEST` images fell that should not have, by their places."""
    if len(images) < FEWEST:
        return no_sign(audit, evidence, n)
    return sign(audit, evidence, n, remedy, serious=serious, items=[f"image {listed(images)}"])


def listed(images: NDArray[np.int64], many: int = 8) -> str:
    """Places of images, of many the first."""
    shown = ", ".join(map(str, images[:many]))
    return f"{shown}, …" if len(images) > many else shown
