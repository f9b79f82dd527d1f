"""The three results of a check: a sign, no sign, or not checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stresslens.core.types import Finding

LISTED = 50
"""Most examples, and images to look at, that a finding names."""


def sign(
    audit: str,
    evidence: str,
    n: int,
    remedy: str,
    *,
    serious: bool = True,
    items: Sequence[str] = (),
    places: Sequence[int] = (),
) -> Finding:
    """There is a sign of a problem; `n` is the number of images, rows or attempts checked. Of `items` and
    `places` the first `LISTED` are kept."""
    severity: Literal["minor", "serious"] = "serious" if serious else "minor"
    return Finding(
        audit, "sign", severity, evidence, n, remedy, tuple(items[:LISTED]), tuple(map(int, places[:LISTED]))
    )


def no_sign(audit: str, evidence: str, n: int) -> Finding:
    return Finding(audit, "no sign", "none", evidence, n)


def not_checked(audit: str, why: str, n: int = 0) -> Finding:
    return Finding(audit, "not checked", "none", why, n)
