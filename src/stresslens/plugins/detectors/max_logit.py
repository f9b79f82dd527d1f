from __future__ import annotations

import numpy as np

from stresslens.core.detectors import Floats64, OODScore


def max_logit() -> OODScore:
    """Minus the highest logit (Hendrycks et al. 2022)."""

    def score(features: Floats64, logits: Floats64) -> Floats64:
        return np.asarray(-logits.max(1))

    return score
