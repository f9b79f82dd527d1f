from __future__ import annotations

from stresslens.core.evidence import Probe
from stresslens.core.types import Finding
from stresslens.plugins.audits._attack_probe import lost, middle, only_by
from stresslens.plugins.audits._finding import not_checked

AUDIT = "doubled steps"


def doubled_steps(probe: Probe) -> Finding:
    """The protocol has not converged: its attacks with twice the steps (or queries) break more
    (Carlini et al. 2019).

    Fewer than two images more are none; serious from a twentieth of the images on.
    """
    if not probe.longer:
        return not_checked(AUDIT, "no attack of the protocol takes steps")
    eps, n = middle(probe), len(probe.labels)
    _, images = only_by(probe, probe.longer, eps)
    said = f"at radius {eps:g} twice the steps break {len(images)} of {n} images more"
    return lost(
        AUDIT,
        images,
        said,
        n,
        "Double the steps until fewer than two images more fall, or take an attack that sets its own step (apgd).",
        serious=len(images) >= max(3, 0.05 * n),
    )
