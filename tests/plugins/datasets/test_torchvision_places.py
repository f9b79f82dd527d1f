"""Where the files of torchvision's classification sets are found, unpacked and downloaded, and what is said
of files and options that are missing, damaged or wrong."""

from __future__ import annotations

import bz2
import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_pictures import TESTED
from torchvision_arrays import emnist, mnist_like
from torchvision_files import FILES, Places, load, variant_of

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.datasets._torchvision_sets import torchvision_set


@pytest.mark.breadth(9)
@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_said_with_the_place(name: str, places: Places) -> None:
    with pytest.raises(DataError) as caught:
        load(name, **variant_of(name))
    says = str(caught.value)
    source, _ = torchvision_set(name, variant_of(name).get("variant"))
    assert says.startswith(f"{name} is not complete in {places[0]}")
    assert f"Put there: {source.needs}" in says
    assert says.endswith("or set STRESSLENS_DATA to the folder that holds it")
    assert "download=True" not in says
    assert ("and could not be downloaded (" in says) == source.downloads
    assert ("and torchvision does not download it" in says) != source.downloads
    assert not list((places[1] / "torchvision").glob("*")) if places[1].exists() else True


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_gzipped_files_of_mnists_format_are_unpacked_into_the_cache(name: str, places: Places) -> None:
    FILES[name](places[0])
    expected = load(name).fingerprint
    raw = places[0] / name / "raw"
    gzip_all(raw)
    assert load(name).fingerprint == expected
    assert all(file.suffix == ".gz" for file in raw.iterdir())
    broken = raw / "train-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be decompressed"):
        load(name)


def gzip_all(raw: Path) -> None:
    for file in list(raw.iterdir()):
        (raw / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


def test_only_the_variant_that_is_asked_is_unpacked(places: Places) -> None:
    emnist(places[0])
    gzip_all(places[0] / "EMNIST" / "raw")
    assert len(load("EMNIST", variant="letters").classes) == 26
    unpacked = {file.name.split("-")[1] for file in places[1].rglob("emnist-*")}
    assert unpacked == {"letters"}


def test_unpacked_files_of_another_folder_are_not_taken(places: Places, tmp_path: Path) -> None:
    """Also where its files are older than the unpacked ones."""
    other = tmp_path / "other"
    for root, test in ((places[0], TESTED), (other, TESTED + 1)):
        mnist_like("FashionMNIST", test=test)(root)
        gzip_all(root / "FashionMNIST" / "raw")
    first = load("FashionMNIST").test
    second = load("FashionMNIST", path=str(other)).test
    assert first is not None
    assert second is not None
    assert (len(first), len(second)) == (10 * TESTED, 10 * (TESTED + 1))


def test_a_download_goes_into_the_cache_as_a_whole(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    made = torchvision().datasets.EuroSAT
    calls = []

    def download(self: Any) -> None:
        calls.append(self.root)
        FILES["EuroSAT"](Path(self.root))
        if len(calls) == 1:
            raise OSError("the line is cut")

    monkeypatch.setattr(made, "download", download)
    with pytest.raises(DataError, match=r"could not be downloaded \(the line is cut\)"):
        load("EuroSAT")
    assert len(load("EuroSAT").classes) == 2
    assert len(load("EuroSAT").classes) == 2
    assert len(calls) == 2
    assert (places[1] / "torchvision" / "EuroSAT" / "eurosat" / "2750").is_dir()
    assert not list(places[0].iterdir())


def test_a_path_is_the_root_of_torchvision(places: Places, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    FILES["SVHN"](tmp_path / "mine")
    assert len(load("SVHN", path=str(tmp_path / "mine")).classes) == 10
    (places[1] / "torchvision" / "SVHN").mkdir(parents=True)
    FILES["SVHN"](places[1] / "torchvision" / "SVHN")
    assert len(load("SVHN").classes) == 10, "it was downloaded before"
    with pytest.raises(DataError, match=r"SVHN is not complete in .*data.*`path` is the folder"):
        load("SVHN", path=str(places[0]))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "FashionMNIST": ("FashionMNIST/raw/train-images-idx3-ubyte", cut),
    "CIFAR100": ("cifar-100-python/train", cut),
    "SVHN": ("train_32x32.mat", cut),
    "STL10": ("stl10_binary/train_X.bin", cut),
    "USPS": ("usps.bz2", cut),
    "FER2013": (
        "fer2013/fer2013.csv",
        lambda file: file.write_text("emotion,pixels,Usage\n9,1 2,Training\n"),
    ),
    "Flowers102": ("flowers-102/setid.mat", cut),
    "GTSRB": ("gtsrb/GT-final_test.csv", lambda file: file.write_text("a;b\n1;2\n")),
    "OxfordIIITPet": ("oxford-iiit-pet/annotations/test.txt", lambda file: file.write_text("nonsense\n")),
    "SUN397": ("SUN397/ClassName.txt", lambda file: file.write_text("/z/zoo\n")),
    "Food101": ("food-101/meta/test.json", lambda file: file.write_text("{")),
    "CelebA": ("celeba/list_attr_celeba.txt", lambda file: file.write_text("1\nSmiling\n1.jpg x\n")),
}


@pytest.mark.breadth(3)
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_a_data_error(name: str, places: Places) -> None:
    FILES[name](places[0])
    file, damage = DAMAGE[name]
    damage(places[0] / file)
    with pytest.raises(DataError, match=rf"{name}.*(is not complete in|damaged).*{os.sep}data"):
        load(name, **variant_of(name))


def test_class_numbers_beyond_the_classes_are_named(places: Places) -> None:
    FILES["USPS"](places[0])
    row = " ".join(["0", *(f"{k}:0" for k in range(256))])
    (places[0] / "usps.t.bz2").write_bytes(bz2.compress(row.encode()))
    with pytest.raises(DataError, match="a picture has the class -1, and there are 10 classes"):
        load("USPS")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "fashion_mnist"}, "did you mean 'FashionMNIST'"),
        ({"name": "MNIT"}, "did you mean 'MNIST'"),
        ({"name": "LSUN"}, "LSUN is not read: it is kept in lmdb databases"),
        ({"name": "LFWPairs"}, "LFWPairs is not read"),
        ({"name": "CelebA"}, "variant: Smiling"),
        ({"name": "CelebA", "variant": "Smile"}, "CelebA has no attribute 'Smile'; did you mean 'Smiling'"),
        ({"name": "USPS", "variant": "large"}, "USPS has only one"),
        ({"name": "EMNIST", "variant": "letter"}, "did you mean 'letters'"),
        ({"name": "USPS", "test": 5}, "USPS already has a test part"),
        ({"name": "DTD", "validation": 5}, "DTD already has a validation part"),
        ({"name": "LFWPeople", "least": 6}, "least: fewer than two classes of LFWPeople have 6"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], says: str, places: Places) -> None:
    if options["name"] in FILES:
        FILES[options["name"]](places[0])
    with pytest.raises(ConfigError, match=says):
        load(**options)


def test_pcam_without_h5py_says_how_to_install_it(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    FILES["PCAM"](places[0])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="pip install h5py"):
        load("PCAM")
