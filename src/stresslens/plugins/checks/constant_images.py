from __future__ import annotations

import numpy as np

from stresslens.core.findings import LISTED, no_sign, sign
from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Finding


def constant_images(pictures: PictureFacts) -> Finding:
    """Images of exactly one colour."""
    constant = np.flatnonzero(pictures.measures.span == 0)
    n = len(pictures.labels)
    if not len(constant):
        return no_sign("constant images", f"none among {n} images", n)
    return sign(
        "constant images",
        f"{len(constant)} of {n} images show one colour only",
        n,
        "remove them",
        serious=len(constant) > n / 100,
        items=[pictures.names[k] for k in constant[:LISTED]],
        places=constant[:LISTED].tolist(),
    )
