from __future__ import annotations

from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Finding, Share
from stresslens.plugins.checks._planted import faulty_images


def dark_images(pictures: PictureFacts, *, grey: Share = 0.3) -> Finding:
    """Images whose bright parts are dark: 99 % of the pixels are below `grey` (0 black, 1 white)."""
    return faulty_images(
        "dark images",
        pictures,
        lambda measures: measures.bright < grey,
        f"are dark (99 % of their pixels are below {grey:g} of white)",
        "look at them; expose or scale them like the others, or remove them",
        {
            "darkened to a quarter": lambda x: x / 4,
            "darkened to a half": lambda x: x / 2,
        },
    )
