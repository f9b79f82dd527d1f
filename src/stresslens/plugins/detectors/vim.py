from __future__ import annotations

import numpy as np

from stresslens.core.detectors import Floats64, OODScore
from stresslens.core.types import Count


def vim(
    features: Floats64, logits: Floats64, weight: Floats64, bias: Floats64, *, dimension: Count | None = None
) -> OODScore:
    """Virtual-logit matching (ViM; Wang et al. 2022): the energy, and what of the features the training
    images do not explain.

    The origin is where the last layer's logits are 0 (minus the pseudoinverse of `weight` times `bias`). The
    residual is the part of the features outside the first `dimension` principal axes of the training images
    about that origin; scaled to the size of their highest logits, it is one more logit. `dimension` is by
    default that of the paper: 1000 from 2048 features on, 512 from 768 on, otherwise half of them. Raises
    ValueError where no axis is left over.
    """
    from scipy.special import logsumexp

    width = features.shape[1]
    usual = 1000 if width >= 2048 else 512 if width >= 768 else width // 2
    kept = usual if dimension is None else dimension
    if kept >= width:
        raise ValueError(f"dimension {kept} leaves no residual of {width} features")
    origin = -np.linalg.pinv(weight) @ bias
    centred = features - origin
    residual = np.linalg.eigh(centred.T @ centred / len(centred))[1][:, : width - kept]  # ascending
    sizes = np.linalg.norm(centred @ residual, axis=1).mean()
    scale = logits.max(1).mean() / max(sizes, 1e-12)

    def score(features: Floats64, logits: Floats64) -> Floats64:
        virtual = scale * np.linalg.norm((features - origin) @ residual, axis=1)
        return np.asarray(virtual - logsumexp(logits, axis=1))

    return score
