from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.image_files import Fit
from stresslens.core.published_facts import PublishedFacts
from stresslens.core.types import Count, NonNegative, Positive, Seed
from stresslens.plugins.datasets._division import Division
from stresslens.plugins.datasets._facts import torchvision_facts
from stresslens.plugins.datasets._listed_images import Colours, Decoding, Unreadable
from stresslens.plugins.datasets._torchvision_data import Wanted, torchvision_data


# long: options are spelled out, one a line, and the docstring explains each
def torchvision(
    *,
    name: str,
    variant: str | None = None,
    path: str | None = None,
    classes: list[str] | None = None,
    names: dict[str, str] | list[str] | None = None,
    least: Count = 1,
    size: Count | tuple[Count, Count] | None = None,
    fit: Fit = "crop",
    colours: Colours = "auto",
    test: NonNegative | None = None,
    validation: NonNegative | None = None,
    unreadable: Unreadable = "error",
    cache_gb: Positive = 16.0,
    subset: Count | None = None,
    seed: Seed = 42,
) -> Data:
    """A classification set of torchvision by its `name`, for example FashionMNIST, with its own
    classes and parts.

    Names: CIFAR10, CIFAR100, Caltech101, Caltech256, CelebA, CLEVRClassification, Country211, DTD,
    EMNIST, EuroSAT, FER2013, FGVCAircraft, FashionMNIST, Flowers102, Food101, GTSRB, INaturalist,
    ImageNet, Imagenette, KMNIST, LFWPeople, MNIST, Omniglot, OxfordIIITPet, PCAM, Places365, QMNIST,
    RenderedSST2, SEMEION, STL10, SUN397, SVHN, StanfordCars, USPS.

    `variant` chooses among the forms of a set, the first by default: EMNIST (balanced, byclass,
    bymerge, letters, digits, mnist), DTD (its partition, 1 to 10), FGVCAircraft (variant, family,
    manufacturer), Imagenette (full, 320px, 160px), INaturalist (2021, 2021_mini, 2019, 2018, 2017),
    LFWPeople (funneled, deepfunneled, original), Omniglot (background, evaluation), OxfordIIITPet
    (category, binary-category), Places365 (large, small). For CelebA it is the attribute that is the
    class, for example Smiling.

    Files: `path` is the folder that torchvision calls root, by default the data root. A set that is
    not complete there is downloaded by torchvision into the cache, if torchvision can and no `path`
    is given.

    Parts: those of the set. Where its test pictures have no published labels, its validation part
    is the test part (ImageNet, Imagenette, Places365, CLEVRClassification, INaturalist 2021). A
    missing validation part is drawn from train, `validation` of its images, by default a fifth; for
    GTSRB the pictures of one sign stay together. A set without parts (Caltech101, Caltech256,
    EuroSAT, INaturalist to 2019, LFWPeople, Omniglot, SEMEION, SUN397) is divided at random, `test`
    and `validation` of all images, a fifth each by default. `subset` keeps that many training
    images, class-balanced.

    `classes`, `names`, `size`, `fit`, `colours`, `unreadable` and `cache_gb` are those of the dataset
    `folder`. `least` keeps the classes with at least that many images. Sets whose pictures are files
    take `size`; those of one size in arrays (CIFAR, MNIST, SVHN, …) are held in memory and take none.
    Raises ConfigError for options that do not fit the set, and DataError, with what is missing and
    where to put it, for files that are not complete.
    """
    return torchvision_data(
        Wanted(name, variant, path),
        Division(test, validation, subset, seed),
        Decoding(size, fit, colours, unreadable, cache_gb),
        classes=classes,
        names=names,
        least=least,
    )


def facts(*, name: str, variant: str | None) -> PublishedFacts | None:
    """What is published of the set."""
    return torchvision_facts(name, variant)
