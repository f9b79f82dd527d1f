from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._torchvision_data import Wanted, torchvision_data


def usps(
    *,
    validation: NonNegative = 0.2,
    subset: Count | None = None,
    names: list[str] | None = None,
    seed: Seed = 42,
) -> Data:
    """USPS (Hull 1994): 7,291 + 2,007 grey images of 16×16 pixels, ten digits.

    `validation` (a count or a share) is drawn from the 7,291. `subset` keeps that many training
    images, class-balanced. `names` replaces the names of the classes, in their order.
    The data set is read from `usps.bz2` and `usps.t.bz2` under the data root; if it is not
    complete there, torchvision downloads it.
    """
    division = Division(validation=validation, subset=subset, seed=seed)
    return torchvision_data(Wanted("USPS", title="usps"), division, names=names)


def facts() -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("USPS")
