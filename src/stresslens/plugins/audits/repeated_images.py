from __future__ import annotations

from torch import Tensor

from stresslens.core.fingerprint import image_keys
from stresslens.core.types import Finding
from stresslens.plugins.audits._finding import no_sign, sign

AUDIT = "repeated images"


def repeated_images(images: tuple[Tensor, Tensor]) -> Finding:
    """Some images occur several times, with the same pixels.

    They are no independent evidence; robust accuracies count each once. A sign from two images that
    repeat others on, serious from a tenth of all images on: an interval that counted them all would
    be a twentieth too narrow.
    """
    x, _ = images
    n, distinct = len(x), len(image_keys(x).unique())
    if n - distinct < 2:
        return no_sign(AUDIT, f"{distinct:,} of {n:,} images are distinct", n)
    return sign(
        AUDIT,
        f"{n - distinct:,} of {n:,} images repeat others, pixel by pixel; {distinct:,} are distinct",
        n,
        "Remove the duplicates (stresslens data check names them), and look at how the split was made: "
        "resampling, or a set that was joined to itself.",
        serious=n - distinct >= 0.1 * n,
    )
