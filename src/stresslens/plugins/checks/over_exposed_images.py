from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stresslens.core.picture_facts import Measures, PictureFacts
from stresslens.core.types import Finding, Share
from stresslens.plugins.checks._planted import faulty_images


def over_exposed_images(
    pictures: PictureFacts, *, grey: Share = 0.6, white: Share = 0.5, background: Share = 0.1
) -> Finding:
    """Images that are too bright.

    Either their dark parts are bright (99 % of the pixels are above `grey`), or more than the share
    `white` of the pixels is white. The second is no fault where white is the background: it is not
    looked at if the median image has more than the share `background` of white pixels.
    """
    paper = float(np.median(pictures.measures.white)) > background

    def rule(measures: Measures) -> NDArray[np.bool_]:
        clipped = (measures.white > white) & (not paper)
        return (measures.dark > grey) | clipped

    what = "" if paper else f", or more than {100 * white:g} % of them are white"
    return faulty_images(
        "over-exposed images",
        pictures,
        rule,
        f"are too bright (99 % of their pixels are above {grey:g} of white{what})",
        "look at them; a white background is no fault; where the content is washed out, remove them",
        {"brightened four times": lambda x: 4 * x, "faded to a quarter": lambda x: 1 - (1 - x) / 4},
    )
