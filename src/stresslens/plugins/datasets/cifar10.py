from __future__ import annotations

import torch

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.data import Data, Split, data_root
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.splits import divided
from stresslens.core.torchvision_compat import reason_of, torchvision
from stresslens.core.types import Count, NonNegative, Seed
from stresslens.plugins.datasets._facts import torchvision_facts


def cifar10(
    *,
    validation: NonNegative = 10_000,
    subset: Count | None = None,
    names: list[str] | None = None,
    seed: Seed = 42,
) -> Data:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32×32 pixels, ten classes.

    `validation` (a count or a share) is drawn from the 50,000. `subset` keeps that many training
    images, class-balanced. `names` replaces the names of the ten classes, airplane first, for
    models that use them in captions. The data set is read from `cifar-10-batches-py` under the data
    root; if it is not complete there, torchvision downloads it.
    """
    dataset = torchvision().datasets.CIFAR10
    for root in dict.fromkeys((data_root(), *readable_caches())):
        try:
            train, test = (dataset(root, train=part) for part in (True, False))
            break
        except RuntimeError:
            continue
    else:
        target = writable_cache("")
        try:
            train, test = (dataset(target, train=part, download=True) for part in (True, False))
        except Exception as error:
            raise DataError(
                f"CIFAR-10 is not in {data_root() / 'cifar-10-batches-py'} and could not be downloaded "
                f"({reason_of(error)}). Put the unpacked cifar-10-python.tar.gz there, "
                "or set STRESSLENS_DATA to the folder that holds cifar-10-batches-py"
            ) from error
    splits = [
        Split(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    ]
    classes = names or train.classes
    if len(set(classes)) != 10:
        raise ConfigError(
            f"names: CIFAR-10 has ten classes, each with its own name; got {', '.join(classes)}"
        )
    return divided(splits[0], splits[1], classes, "cifar10", validation=validation, subset=subset, seed=seed)


def facts() -> PublishedFacts | None:
    """What is published of the data set."""
    return torchvision_facts("CIFAR10")
