"""Small files in the format of every classification set of torchvision, for tests without a network.

`FILES[name](root)` writes them; every part has pictures of every class. Checksums are not looked at
(`unchecked`).
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_pictures import EACH, TESTED
from torchvision_arrays import cifar, emnist, fer2013, mnist_like, pcam, qmnist, semeion, stl10, svhn, usps
from torchvision_pictures import (
    caltech101,
    caltech256,
    celeba,
    clevr,
    dtd,
    fgvc_aircraft,
    flowers102,
    food101,
    gtsrb,
    imagenet,
    imagenette,
    in_folders,
    inaturalist,
    lfw_people,
    omniglot,
    oxford_iiit_pet,
    places365,
    stanford_cars,
    sun397,
)

from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.torchvision_compat import torchvision

Places = tuple[Path, Path]
"""A data root and a cache."""


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums of torchvision's files are not looked at, only whether the files are there."""
    torchvision()

    def is_there(path: str, md5: str | None = None) -> bool:
        return os.path.isfile(path)

    for name, module in list(sys.modules.items()):
        if name.startswith("torchvision.datasets.") and hasattr(module, "check_integrity"):
            monkeypatch.setattr(module, "check_integrity", is_there)


def arrays_as_h5py(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in place of h5py that reads npz."""
    module = types.ModuleType("h5py")
    module.File = np.load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", module)


FILES: dict[str, Callable[[Path], None]] = {
    "CIFAR10": cifar("CIFAR10"),
    "CIFAR100": cifar("CIFAR100"),
    "Caltech101": caltech101,
    "Caltech256": caltech256,
    "CelebA": celeba,
    "CLEVRClassification": clevr,
    "Country211": in_folders(
        ("country211/train", EACH), ("country211/valid", TESTED), ("country211/test", TESTED)
    ),
    "DTD": dtd,
    "EMNIST": emnist,
    "EuroSAT": in_folders(("eurosat/2750", EACH), classes=("Forest", "River")),
    "FER2013": fer2013,
    "FGVCAircraft": fgvc_aircraft,
    "FashionMNIST": mnist_like("FashionMNIST"),
    "Flowers102": flowers102,
    "Food101": food101,
    "GTSRB": gtsrb,
    "INaturalist": inaturalist,
    "ImageNet": imagenet,
    "Imagenette": imagenette,
    "KMNIST": mnist_like("KMNIST"),
    "LFWPeople": lfw_people,
    "MNIST": mnist_like("MNIST"),
    "Omniglot": omniglot,
    "OxfordIIITPet": oxford_iiit_pet,
    "PCAM": pcam,
    "Places365": places365,
    "QMNIST": qmnist,
    "RenderedSST2": in_folders(
        *(
            ("rendered-sst2/" + part, each)
            for part, each in (("train", EACH), ("valid", TESTED), ("test", 2))
        ),
        classes=("negative", "positive"),
        suffix="png",
    ),
    "SEMEION": semeion,
    "STL10": stl10,
    "SUN397": sun397,
    "SVHN": svhn,
    "StanfordCars": stanford_cars,
    "USPS": usps,
}


def load(name: str, **options: Any) -> Data:
    """The dataset `torchvision` with this set."""
    data: Data = registry.resolve("datasets", {"torchvision": {"name": name, **options}})()
    return data


def variant_of(name: str) -> dict[str, Any]:
    """The options without which a set is not read."""
    return {"variant": "Smiling"} if name == "CelebA" else {}
