from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Finding
from stresslens.plugins.checks._shortcuts import shortcut


def label_from_mean_colour(data: Data, pictures: PictureFacts) -> Finding:
    """Whether the mean colour alone gives the label."""
    return shortcut("mean colour", pictures.measures.colour[pictures.part == 0], data)
