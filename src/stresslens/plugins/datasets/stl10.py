from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._torchvision_data import Wanted, torchvision_data


def stl10(
    *,
    validation: NonNegative = 0.2,
    subset: Count | None = None,
    names: list[str] | None = None,
    seed: Seed = 42,
) -> Data:
    """STL-10 (Coates et al. 2011): 5,000 + 8,000 colour images of 96×96 pixels, ten classes; the
    100,000 images without a label are not read.

    `validation` (a count or a share) is drawn from the 5,000. `subset` keeps that many training
    images, class-balanced. `names` replaces the names of the classes, in their order. The data set
    is read from `stl10_binary` under the data root; if it is not complete there, torchvision
    downloads it.
    """
    division = Division(validation=validation, subset=subset, seed=seed)
    return torchvision_data(Wanted("STL10", title="stl10"), division, names=names)


def facts() -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("STL10")
