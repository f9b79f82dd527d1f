from __future__ import annotations

from typing import Literal

from stresslens.core.data import Data
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._torchvision_data import Wanted, torchvision_data


def emnist(
    *,
    variant: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = "balanced",
    validation: NonNegative = 0.2,
    subset: Count | None = None,
    names: list[str] | None = None,
    seed: Seed = 42,
) -> Data:
    """EMNIST (Cohen et al. 2017): handwritten digits and letters, grey images of 28×28 pixels.

    `variant` says which: `balanced` and `bymerge` have 47 classes, because 15 capital and small
    letters look alike, `byclass` has 62, `letters` 26, `digits` and `mnist` ten. The images lie on
    their side, as the files and torchvision have them. `validation` (a count or a share) is drawn
    from the training images. `subset` keeps that many training images, class-balanced. `names`
    replaces the names of the classes, in their order. The data set is read from `EMNIST/raw` under
    the data root; if it is not complete there, torchvision downloads it.
    """
    division = Division(validation=validation, subset=subset, seed=seed)
    return torchvision_data(Wanted("EMNIST", variant, title="emnist"), division, names=names)


def facts(*, variant: str) -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("EMNIST", variant)
