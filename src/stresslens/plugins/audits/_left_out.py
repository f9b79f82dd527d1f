"""Shared by audits of images that an attack left out: do they stand out by class or place?"""

from __future__ import annotations

from collections.abc import Mapping

from scipy.stats import hypergeom

CHANCE = 0.01
"""The chance that any group stands out where none is special (Bonferroni over the groups)."""


def standing_out(counts: Mapping[str, tuple[int, int]], total: tuple[int, int] | None = None) -> list[str]:
    """The groups that hold more of some images than chance explains, the least likely first.

    `counts` has for each group how many of the special images are in it, and how many images at
    all; `total` has both for all groups together, by default the sums over the even and odd places.
    At least three special images are needed.
    """
    special, n = total or tuple(
        sum(counts.get(f"{half} places of the batch", (0, 0))[k] for half in ("even", "odd")) for k in (0, 1)
    )
    if special < 3 or special >= n:
        return []
    chances = {
        name: float(hypergeom.sf(few - 1, n, size, special))
        for name, (few, size) in counts.items()
        if few and size < n
    }
    found = sorted(name for name, chance in chances.items() if chance * len(chances) < CHANCE)
    return [
        f"{name} ({counts[name][0]:,} of {counts[name][1]:,})"
        for name in sorted(found, key=chances.__getitem__)
    ]
