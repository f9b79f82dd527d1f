from __future__ import annotations

from stresslens.core.detectors import Floats64, OODScore
from stresslens.core.types import Positive


def energy(*, temperature: Positive = 1.0) -> OODScore:
    """The energy of the logits, -T log Σ exp(logit / T) (Liu et al. 2020, equation 4).

    It needs nothing from the training images. The logits of an ensemble of probabilities are their
    logarithms, whose energy is 0 for every image, which tells nothing.
    """
    from scipy.special import logsumexp

    def score(features: Floats64, logits: Floats64) -> Floats64:
        values: Floats64 = -temperature * logsumexp(logits / temperature, axis=1)
        return values

    return score
