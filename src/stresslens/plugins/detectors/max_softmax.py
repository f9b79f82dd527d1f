from __future__ import annotations

from stresslens.core.detectors import Floats64, OODScore


def max_softmax() -> OODScore:
    """One minus the highest probability (Hendrycks & Gimpel 2017): images of which the model is unsure.

    The baseline that every other detector is compared with.
    """
    from scipy.special import softmax

    def score(features: Floats64, logits: Floats64) -> Floats64:
        values: Floats64 = 1 - softmax(logits, axis=1).max(1)
        return values

    return score
