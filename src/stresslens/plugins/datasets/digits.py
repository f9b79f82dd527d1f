from __future__ import annotations

from stresslens.core.data import Data, Split
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.splits import drawn
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._digits import digit_images


def digits(
    *, test: NonNegative = 0.2, validation: NonNegative = 0.2, subset: Count | None = None, seed: Seed = 42
) -> Data:
    """scikit-learn's digits: 1,797 grey images of 8×8 pixels, values 0 to 16, ten classes; no
    download.

    `test` and `validation` are counts or shares of all images, stratified by class. `subset` keeps
    that many training images, class-balanced. With `seed=42` and `test=0.2` the test images are
    those of scikit-learn's `train_test_split(test_size=0.2, stratify=labels, random_state=42)`.
    """
    images, labels = digit_images()
    whole = Split(images[:, None], labels, scale=16.0)
    names = [str(digit) for digit in range(10)]
    return drawn(whole, names, "digits", test=test, validation=validation, subset=subset, seed=seed)


def facts() -> PublishedFacts:
    """What is published of the data set."""
    return PublishedFacts(
        "Optical digits, the test part of UCI's set",
        "Alpaydin and Kaynak 1998",
        {"all": 1_797},
        10,
        "8×8, grey",
    )
