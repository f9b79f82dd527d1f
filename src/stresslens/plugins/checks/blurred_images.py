from __future__ import annotations

from functools import partial

from stresslens.core.blur import blurred
from stresslens.core.picture_facts import PictureFacts
from stresslens.core.types import Finding, Share
from stresslens.plugins.checks._planted import faulty_images


def blurred_images(pictures: PictureFacts, *, sharpness: Share = 0.004) -> Finding:
    """Images that a blur of one pixel hardly changes.

    Sharpness is the share of the grey variance that such a blur removes (the idea of Crété et al. 2007:
    what is blurred does not change when it is blurred again). Below `sharpness`, an image is out of
    focus, or was enlarged from a smaller one. A blur of less than 1.5 pixels is not looked for, because
    sharp photographs of smooth things are like that.
    """
    return faulty_images(
        "blurred images",
        pictures,
        lambda measures: measures.sharpness < sharpness,
        "are blurred, or enlarged from smaller ones",
        "look at them; if they are of one class or source, take sharp images for it: a network learns the "
        "blur instead of the content",
        {
            "blurred by 2 pixels": partial(blurred, deviation=2.0),
            "blurred by 3 pixels": partial(blurred, deviation=3.0),
        },
    )
