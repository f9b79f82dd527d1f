"""Every classification set of torchvision, from small files in its own format, against torchvision's own
pictures, labels and classes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_pictures import EACH, TESTED
from torchvision_arrays import emnist
from torchvision_files import FILES, Places, load, variant_of

from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.torchvision_compat import torchvision
from stresslens.plugins.datasets._torchvision_sets import REFUSED, SETS, torchvision_set


def content_of_torchvision(name: str, part: str | None, root: Path) -> Counter[tuple[bytes, Any]]:
    """The RGB bytes and the label of every picture, as torchvision's own class gives them."""
    source, chosen = torchvision_set(name, variant_of(name).get("variant"))
    found = getattr(torchvision().datasets, name)(root, **source.variants[chosen][part])
    pairs = (found[k] for k in range(len(found)))
    smiling = list(found.attr_names).index("Smiling") if name == "CelebA" else 0
    return Counter(
        (picture.convert("RGB").tobytes(), int(label[smiling] if name == "CelebA" else label))
        for picture, label in pairs
    )


def content_of(data: Data, *parts: str) -> Counter[tuple[bytes, str]]:
    found: Counter[tuple[bytes, str]] = Counter()
    for part in parts:
        split = data.splits[part]
        images = split.images[:].permute(0, 2, 3, 1)
        rgb = images.expand(-1, -1, -1, 3).numpy()
        found.update((image.tobytes(), data.classes[int(y)]) for image, y in zip(rgb, split.labels))
    return found


CLASSES: dict[str, list[str]] = {
    "Caltech101": ["Faces", "ant"],
    "Caltech256": ["001.ak47", "002.american-flag"],
    "CelebA": ["not Smiling", "Smiling"],
    "CLEVRClassification": [str(k) for k in range(3, 11)],
    "FER2013": ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"],
    "GTSRB": [str(k) for k in range(43)],
    "ImageNet": ["tench, Tinca tinca", "crane (n02012849)", "crane (n03126707)"],
    "INaturalist": [f"{k:05d}_Animalia_Arthropoda_Insecta_Coleoptera_F_G_s{k}" for k in range(2)],
    "LFWPeople": ["Ann_A", "Bob_B", "Cy_C"],
    "Omniglot": ["Arcadian/character01", "Greek/character01", "Greek/character02"],
    "PCAM": ["no tumor", "tumor"],
    **{name: list("0123456789") for name in ("SEMEION", "SVHN", "USPS")},
}
"""Where torchvision has no list of names, or not one name for each class."""
OTHER_NUMBERS = {"CLEVRClassification": 3, "Omniglot": None}
"""torchvision's number of the first class, where it is not 0; None: in the order of the file system."""
TEST_IS = {"ImageNet": "val", "Imagenette": "val", "Places365": "val", "CLEVRClassification": "val"}


def test_every_classification_set_is_here() -> None:
    known = set(SETS) | {"CelebA"}
    assert set(FILES) == known
    others = """CREStereo CarlaStereo Cityscapes CocoCaptions CocoDetection DatasetFolder ETH3DStereo
    FallingThingsStereo Flickr30k Flickr8k FlyingChairs FlyingThings3D HD1K HMDB51 ImageFolder InStereo2k
    Kinetics Kitti Kitti2012Stereo Kitti2015Stereo KittiFlow LSUNClass Middlebury2014Stereo MovingMNIST
    PhotoTour SBDataset SBU SceneFlowStereo Sintel SintelStereo UCF101 VOCDetection VOCSegmentation
    VisionDataset WIDERFace wrap_dataset_for_transforms_v2"""  # stereo, flow, video, captions, boxes, masks
    assert set(torchvision().datasets.__all__) - known - set(REFUSED) <= set(others.split())


@pytest.mark.breadth(8)
@pytest.mark.parametrize("name", FILES)
def test_a_set_is_torchvisions(name: str, places: Places) -> None:
    FILES[name](places[0])
    source, chosen = torchvision_set(name, variant_of(name).get("variant"))
    least = {"least": 2} if name == "LFWPeople" else {}
    data = load(name, **variant_of(name), **({"colours": "rgb"} if source.files else {}), **least)
    parts = list(source.variants[chosen])
    found = getattr(torchvision().datasets, name)(places[0], **source.variants[chosen][parts[0]])
    classes = CLASSES.get(name) or [c if isinstance(c, str) else ", ".join(c) for c in found.classes]
    assert list(data.classes) == [c for c in classes if not (least and c == "Cy_C")]
    assert data.name == name
    assert set(data.splits) == {"train", "validation", "test"}

    def expected(part: str | None) -> Counter[tuple[bytes, str]]:
        content = content_of_torchvision(name, part, places[0])
        if name == "Omniglot":
            return Counter({(pixels, found._characters[y]): n for (pixels, y), n in content.items()})
        first = OTHER_NUMBERS.get(name) or 0
        named = {(pixels, classes[y - first]): n for (pixels, y), n in content.items()}
        return Counter({key: n for key, n in named.items() if key[1] in data.classes})

    if parts == [None]:
        assert content_of(data, "train", "validation", "test") == expected(None)
        return
    assert content_of(data, "test") == expected("test")
    if "validation" in parts:
        assert content_of(data, "validation") == expected("validation")
        assert content_of(data, "train") == expected("train")
    else:
        assert content_of(data, "train", "validation") == expected("train")


@pytest.mark.breadth(4)
@pytest.mark.parametrize(
    ("name", "variant", "classes"),
    [
        ("EMNIST", "letters", 26),
        ("EMNIST", "byclass", 62),
        ("DTD", "7", 2),
        ("FGVCAircraft", "manufacturer", 2),
        ("OxfordIIITPet", "binary-category", 2),
        ("Imagenette", "160px", 10),
        ("INaturalist", "2021_mini", 2),
        ("INaturalist", "2019", 2),
        ("INaturalist", "2017", 2),
        ("LFWPeople", "original", 3),
        ("Omniglot", "evaluation", 3),
        ("Places365", "small", 2),
    ],
)
def test_a_variant_is_read(name: str, variant: str, classes: int, places: Places) -> None:
    FILES[name](places[0])
    drawn = {"test": 0, "validation": 0} if name == "LFWPeople" else {}
    data = load(name, variant=variant, **drawn)
    assert len(data.classes) == classes
    assert data.train.labels.unique().tolist() == list(range(classes))


def test_the_letters_of_emnist_begin_with_a(places: Places) -> None:
    emnist(places[0])
    data = load("EMNIST", variant="letters")
    assert data.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    found = torchvision().datasets.EMNIST(places[0], "letters")
    first = data.classes[int(found[0][1]) - 1]  # torchvision counts from 1
    assert (np.asarray(found[0][0].convert("RGB")).tobytes(), first) in content_of(
        data, "train", "validation"
    )


@pytest.mark.slow
def test_the_pictures_of_one_sign_stay_together(places: Places) -> None:
    FILES["GTSRB"](places[0])
    data = load("GTSRB")
    assert data.validation is not None
    groups = [set(split.columns["group"]) for split in (data.train, data.validation)]
    assert not groups[0] & groups[1]
    assert len(groups[0] | groups[1]) == 43 * 5


def test_pictures_of_several_sizes_need_a_size(places: Places) -> None:
    from PIL import Image

    FILES["EuroSAT"](places[0])
    Image.new("RGB", (20, 30)).save(places[0] / "eurosat" / "2750" / "River" / "0.jpg")
    with pytest.raises(DataError, match=r"EuroSAT: the images differ in size .*set `size`"):
        load("EuroSAT")
    assert load("EuroSAT", size=8, fit="pad").shape == (3, 8, 8)
    assert load("EuroSAT", size=[6, 8]).shape == (3, 6, 8)


def test_sets_of_one_size_take_no_size(places: Places) -> None:
    FILES["USPS"](places[0])
    with pytest.raises(ConfigError, match=r"size: the pictures of USPS have one size.*input"):
        load("USPS", size=8)


def test_classes_are_chosen_and_renamed(places: Places) -> None:
    FILES["FashionMNIST"](places[0])
    data = load("FashionMNIST", classes=["Bag", "Coat"], names={"Bag": "handbag"}, validation=2)
    assert data.classes == ("handbag", "Coat")
    assert len(data.train) + 2 == 2 * EACH
    assert data.test is not None
    assert data.test.labels.bincount().tolist() == [TESTED, TESTED]
    whole = content_of(load("FashionMNIST"), "test")
    bags = {pixels for pixels, label in whole if label == "Bag"}
    assert {p for p, label in content_of(data, "test") if label == "handbag"} == bags
    with pytest.raises(ConfigError, match="FashionMNIST has no class 'bag'; did you mean 'Bag'"):
        load("FashionMNIST", classes=["bag", "Coat"])


def test_one_command_trains_on_files_in_the_format_of_fashion_mnist(places: Places, type_: Any) -> None:
    FILES["FashionMNIST"](places[0])
    code, _, err = type_("train", "fashion_mnist", "linear", "train.epochs=1")
    assert code == 0, err
    (record,) = Path("runs").rglob("record.json")
    data = json.loads(record.read_text())["data"]
    assert data["name"] == "fashion_mnist"
    (card,) = Path("runs").rglob("model.json")
    assert json.loads(card.read_text())["classes"] == torchvision().datasets.FashionMNIST.classes


def test_test_pictures_without_labels_are_left_out(places: Places) -> None:
    FILES["FER2013"](places[0])
    folder = places[0] / "fer2013"
    lines = (folder / "fer2013.csv").read_text().splitlines()
    training = [line.rpartition(",")[0] for line in lines if line.endswith(("Usage", "Training"))]
    (folder / "train.csv").write_text("\n".join(training))
    tests = [line.split(",")[1] for line in lines if not line.endswith("Training")]
    (folder / "test.csv").write_text("\n".join(tests))
    (folder / "fer2013.csv").unlink()
    data = load("FER2013")
    assert set(data.splits) == {"train", "validation"}


def test_a_person_with_one_picture_is_named(places: Places) -> None:
    FILES["LFWPeople"](places[0])
    with pytest.raises(DataError, match=r"LFWPeople: cannot draw .*'Cy_C'\) has 1 image"):
        load("LFWPeople")
    assert load("LFWPeople", least=2).classes == ("Ann_A", "Bob_B")


def test_pixels_of_arrays_keep_their_axes(places: Places) -> None:
    for name in ("STL10", "SVHN", "CIFAR100"):
        FILES[name](places[0])
        data = load(name)
        assert data.shape[0] == 3
        assert data.train.images.dtype == torch.uint8
        assert data.train.images[:].is_contiguous()
