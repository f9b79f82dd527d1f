from __future__ import annotations

from stresslens.audits._finding import no_sign, sign
from stresslens.audits._probing import listed, middle, only_by
from stresslens.core.evidence import Probe
from stresslens.core.types import Count, Finding

AUDIT = "square wins"


def square_wins(probe: Probe, *, queries: Count = 500) -> Finding:
    """The Square attack (Andriushchenko et al. 2020), which takes no gradients, breaks images that the protocol does not.

    White-box attacks know more and should break more, image by image. A sign from two images on, serious from 3 %.
    """
    eps, n = middle(probe), len(probe.labels)
    _, images = only_by(probe, [{"square": {"queries": queries}}], eps)
    said = f"at radius {eps:g} Square ({queries} queries) breaks {len(images)} of {n} images that the protocol leaves"
    if len(images) < 2:
        return no_sign(AUDIT, said, n)
    return sign(
        AUDIT,
        said,
        n,
        "Gradients mislead on this model or with this loss: attack a margin or dlr as well, from several starts, replace what has "
        "no gradient on the backward pass (BPDA), and keep Square in the protocol.",
        serious=len(images) >= max(2, 0.03 * n),
        items=[f"image {listed(images)}"],
    )
