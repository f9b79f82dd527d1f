from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Count, Finding


def tiny_classes(data: Data, *, images: Count = 20) -> Finding:
    """Classes with fewer than so many training `images`; serious below 5.

    With fewer than 20 test images, the recall of a class is known to ±20 percentage points at best.
    """
    counts = data.train.labels.cpu().bincount(minlength=len(data.classes)).tolist()
    tiny = {name: count for name, count in zip(data.classes, counts) if count < images}
    if not tiny:
        evidence = f"every class has at least {images} training images"
        return no_sign("tiny classes", evidence, len(data.train))
    have = "has" if len(tiny) == 1 else "have"
    return sign(
        "tiny classes",
        f"{len(tiny)} of {len(counts)} classes {have} fewer than {images} training images",
        len(data.train),
        "collect more, or merge them",
        serious=min(tiny.values()) < 5,
        items=[f"{name}: {count}" for name, count in tiny.items()],
    )
