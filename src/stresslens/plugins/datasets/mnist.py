from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.splits import divided
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._mnist_files import mnist_splits


def mnist(*, validation: NonNegative = 10_000, subset: Count | None = None, seed: Seed = 42) -> Data:
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 grey images of 28×28 pixels, ten classes.

    `validation` (a count or a share) is drawn from the 60,000. `subset` keeps that many training
    images, class-balanced. The data set is read from `MNIST/raw` under the data root, gzipped or
    not. Missing files are downloaded by torchvision.
    """
    train, test = mnist_splits()
    return divided(
        train, test, [str(k) for k in range(10)], "mnist", validation=validation, subset=subset, seed=seed
    )


def facts() -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("MNIST")
