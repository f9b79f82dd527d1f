from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._torchvision_data import Wanted, torchvision_data


def qmnist(
    *,
    validation: NonNegative = 0.2,
    subset: Count | None = None,
    names: list[str] | None = None,
    seed: Seed = 42,
) -> Data:
    """QMNIST (Yadav and Bottou 2019): MNIST's 60,000 training images made anew, and 60,000 test
    images, grey, 28×28 pixels, ten digits.

    `validation` (a count or a share) is drawn from the 60,000. `subset` keeps that many training
    images, class-balanced. `names` replaces the names of the classes, in their order. The data set
    is read from `QMNIST/raw` under the data root; if it is not complete there, torchvision
    downloads it.
    """
    division = Division(validation=validation, subset=subset, seed=seed)
    return torchvision_data(Wanted("QMNIST", title="qmnist"), division, names=names)


def facts() -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("QMNIST")
