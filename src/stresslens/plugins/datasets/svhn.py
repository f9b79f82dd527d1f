from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._torchvision_data import Wanted, torchvision_data


def svhn(
    *,
    validation: NonNegative = 0.2,
    subset: Count | None = None,
    names: list[str] | None = None,
    seed: Seed = 42,
) -> Data:
    """SVHN (Netzer et al. 2011): 73,257 + 26,032 colour images of 32×32 pixels, digits of house
    numbers; the 531,131 extra images are not read.

    `validation` (a count or a share) is drawn from the 73,257. `subset` keeps that many training
    images, class-balanced. `names` replaces the names of the classes, in their order.
    The data set is read from `train_32x32.mat` and `test_32x32.mat` under the data root; if it is not
    complete there, torchvision downloads it.
    """
    division = Division(validation=validation, subset=subset, seed=seed)
    return torchvision_data(Wanted("SVHN", title="svhn"), division, names=names)


def facts() -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("SVHN")
