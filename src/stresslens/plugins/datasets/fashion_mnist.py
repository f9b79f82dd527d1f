from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._torchvision_data import Wanted, torchvision_data


def fashion_mnist(
    *,
    validation: NonNegative = 0.2,
    subset: Count | None = None,
    names: list[str] | None = None,
    seed: Seed = 42,
) -> Data:
    """Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 grey images of 28×28 pixels, ten kinds of
    clothing.

    `validation` (a count or a share) is drawn from the 60,000. `subset` keeps that many training
    images, class-balanced. `names` replaces the names of the classes, in their order. The data set
    is read from `FashionMNIST/raw` under the data root; if it is not complete there, torchvision
    downloads it.
    """
    division = Division(validation=validation, subset=subset, seed=seed)
    return torchvision_data(Wanted("FashionMNIST", title="fashion_mnist"), division, names=names)


def facts() -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("FashionMNIST")
