from __future__ import annotations

from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Finding, Share
from stresslens.plugins.checks._planted import faulty_images


def nearly_uniform_images(pictures: PictureFacts, *, spread: Share = 0.03) -> Finding:
    """Images that show almost one colour: the standard deviation of the pixels is below `spread` (of
    white) in every channel. Images of exactly one colour are counted by `constant images`."""
    return faulty_images(
        "nearly uniform images",
        pictures,
        lambda measures: (measures.spread < spread) & (measures.span > 0),
        f"show almost one colour (standard deviation below {spread:g} of white)",
        "look at them; remove those that show nothing",
        {
            "faded to 2 % of their contrast": lambda x: (
                x.mean((2, 3), keepdim=True) + 0.02 * (x - x.mean((2, 3), keepdim=True))
            ),
            "faded to 5 %": lambda x: (
                x.mean((2, 3), keepdim=True) + 0.05 * (x - x.mean((2, 3), keepdim=True))
            ),
        },
    )
