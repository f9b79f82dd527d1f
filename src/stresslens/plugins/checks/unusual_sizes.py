from __future__ import annotations

import numpy as np

from stresslens.core.data import Data
from stresslens.core.findings import LISTED, no_sign, not_checked, sign
from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Finding, Positive, Share
from stresslens.plugins.checks._planted import OFTEN

AUDIT = "unusual sizes"


def unusual_sizes(
    data: Data, pictures: PictureFacts, *, kept: Share = 0.5, enlarged: Positive = 2.0
) -> Finding:
    """Image files that lose much when they are fitted to the size of the data.

    With `fit: crop`, less than the share `kept` of the file is left; with `pad`, the file fills less
    than this share; with `stretch`, one side is scaled less than this share of the other. Or a file is
    enlarged more than `enlarged` times, and shows less than it seems to.
    """
    splits = list(data.splits.values())
    if not all("width" in split.columns for split in splits):
        return not_checked(AUDIT, "the sizes of the image files are not known")
    width, height = (
        np.concatenate([np.asarray(split.columns[side], np.float64) for split in splits])
        for side in ("width", "height")
    )
    _, h, w = data.shape
    across, down = w / width, h / height
    ratio = np.minimum(across, down) / np.maximum(across, down)
    scale = np.minimum(across, down) if data.fit == "pad" else np.maximum(across, down)
    lost, small, n = ratio < kept, scale > enlarged, len(width)
    result = {
        "crop": "is left after cropping",
        "pad": "is filled",
        "stretch": "is one side's scale of the other",
    }
    rule = f"less than {100 * kept:g} % {result[data.fit]}, or they are enlarged more than {enlarged:g} times"
    found = np.flatnonzero(lost | small)
    if not len(found):
        return no_sign(AUDIT, f"none of {n} image files is such that {rule}", n)
    found = found[np.argsort(np.where(lost, ratio, 1 / scale)[found], kind="stable")]
    items = [f"{pictures.names[k]} ({width[k]:.0f}×{height[k]:.0f})" for k in found[:LISTED]]
    return sign(
        AUDIT,
        f"{lost.sum()} of {n} image files are much longer or wider than {w}×{h}, and {small.sum()} are much "
        f"smaller ({rule})",
        n,
        "look at what is left of them; use another size or fit (size, fit: pad), or remove them",
        serious=len(found) > OFTEN * n,
        items=items,
        places=found[:LISTED].tolist(),
    )
