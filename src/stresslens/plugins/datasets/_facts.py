"""What is published of the sets of torchvision. Only what we are sure of stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stresslens.core.published_facts import PublishedFacts
from stresslens.plugins.datasets._torchvision_sets import torchvision_set

NORTHCUTT = "Northcutt, Athalye and Mueller 2021"
BARZ = "ciFAIR: Barz and Denzler 2020"
NON_COMMERCIAL = "for non-commercial research only"
DRAWN_FROM_SIGNS = "training pictures are frames of the same signs: the frames of one sign belong in one part"


def _train_test(train: int, test: int) -> dict[str, int]:
    return {"train": train, "test": test}


def _three(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


FACTS: Mapping[str, PublishedFacts] = {
    "MNIST": PublishedFacts(
        "MNIST",
        "LeCun, Bottou, Bengio and Haffner 1998",
        _train_test(60_000, 10_000),
        10,
        "28×28, grey",
        label_noise=f"about 0.15 % of the test labels are wrong ({NORTHCUTT})",
    ),
    "FashionMNIST": PublishedFacts(
        "Fashion-MNIST",
        "Xiao, Rasul and Vollgraf 2017",
        _train_test(60_000, 10_000),
        10,
        "28×28, grey",
        licence="MIT",
    ),
    "KMNIST": PublishedFacts(
        "Kuzushiji-MNIST",
        "Clanuwat et al. 2018",
        _train_test(60_000, 10_000),
        10,
        "28×28, grey",
        licence="CC BY-SA 4.0",
    ),
    "QMNIST": PublishedFacts(
        "QMNIST",
        "Yadav and Bottou 2019",
        _train_test(60_000, 60_000),
        10,
        "28×28, grey",
        notes=("the first 10,000 test images are MNIST's, made anew",),
    ),
    "EMNIST": PublishedFacts(
        "EMNIST balanced",
        "Cohen, Afshar, Tapson and van Schaik 2017",
        _train_test(112_800, 18_800),
        47,
        "28×28, grey",
        notes=("the pictures lie on their side in the files",),
    ),
    "USPS": PublishedFacts("USPS", "Hull 1994", _train_test(7_291, 2_007), 10, "16×16, grey"),
    "SVHN": PublishedFacts(
        "SVHN",
        "Netzer et al. 2011",
        _train_test(73_257, 26_032),
        10,
        "32×32, colour",
        licence="for non-commercial use only",
        notes=("531,131 extra images are published; they are not read here",),
    ),
    "CIFAR10": PublishedFacts(
        "CIFAR-10",
        "Krizhevsky 2009",
        _train_test(50_000, 10_000),
        10,
        "32×32, colour",
        duplicates=f"3.3 % of the test images have a near duplicate in train or in test itself ({BARZ})",
        label_noise=f"about 0.54 % of the test labels are wrong ({NORTHCUTT})",
    ),
    "CIFAR100": PublishedFacts(
        "CIFAR-100",
        "Krizhevsky 2009",
        _train_test(50_000, 10_000),
        100,
        "32×32, colour",
        duplicates=f"10 % of the test images have a near duplicate in train or in test itself ({BARZ})",
        label_noise=f"about 5.85 % of the test labels are wrong ({NORTHCUTT})",
    ),
    "STL10": PublishedFacts(
        "STL-10",
        "Coates, Lee and Ng 2011",
        _train_test(5_000, 8_000),
        10,
        "96×96, colour",
        notes=("100,000 images without a label are published; they are not read here",),
    ),
    "SEMEION": PublishedFacts("Semeion", "Buscema 1998", {"all": 1_593}, 10, "16×16, black and white"),
    "FER2013": PublishedFacts(
        "FER2013",
        "Goodfellow et al. 2013",
        _train_test(28_709, 7_178),
        7,
        "48×48, grey",
        label_noise="people agree with 65 ± 5 % of the labels (Goodfellow et al. 2013)",
    ),
    "PCAM": PublishedFacts(
        "PatchCamelyon",
        "Veeling et al. 2018",
        _three(262_144, 32_768, 32_768),
        2,
        "96×96, colour",
        licence="CC0",
        duplicates="the sampling left copies in the set (its page at Kaggle); how many is not known to us",
    ),
    "Caltech101": PublishedFacts(
        "Caltech 101",
        "Fei-Fei, Fergus and Perona 2004",
        {"all": 8_677},
        101,
        "several sizes, colour and grey",
    ),
    "Caltech256": PublishedFacts(
        "Caltech 256",
        "Griffin, Holub and Perona 2007",
        {"all": 30_607},
        257,
        "several sizes, colour and grey",
        notes=("the class 257.clutter is no object",),
    ),
    "CelebA": PublishedFacts(
        "CelebA",
        "Liu, Luo, Wang and Tang 2015",
        _three(162_770, 19_867, 19_962),
        2,
        "178×218, colour",
        licence=NON_COMMERCIAL,
        notes=("forty attributes of 10,177 persons; no person is in two parts",),
    ),
    "CLEVRClassification": PublishedFacts(
        "CLEVR, number of objects",
        "Johnson et al. 2017",
        {"train": 70_000, "validation": 15_000},
        8,
        "480×320, colour",
        licence="CC BY 4.0",
        test="validation",
    ),
    "Country211": PublishedFacts(
        "Country211", "Radford et al. 2021", _three(31_650, 10_550, 21_100), 211, "several sizes, colour"
    ),
    "DTD": PublishedFacts(
        "Describable Textures", "Cimpoi et al. 2014", _three(1_880, 1_880, 1_880), 47, "several sizes, colour"
    ),
    "EuroSAT": PublishedFacts(
        "EuroSAT", "Helber et al. 2019", {"all": 27_000}, 10, "64×64, colour", licence="MIT"
    ),
    "FGVCAircraft": PublishedFacts(
        "FGVC Aircraft",
        "Maji et al. 2013",
        _three(3_334, 3_333, 3_333),
        100,
        "several sizes, colour",
        licence=NON_COMMERCIAL,
    ),
    "Flowers102": PublishedFacts(
        "Oxford 102 Flowers",
        "Nilsback and Zisserman 2008",
        _three(1_020, 1_020, 6_149),
        102,
        "several sizes, colour",
    ),
    "Food101": PublishedFacts(
        "Food-101",
        "Bossard, Guillaumin and Van Gool 2014",
        _train_test(75_750, 25_250),
        101,
        "several sizes, colour",
        label_noise="its authors left wrong labels among the training images on purpose, and reviewed test",
    ),
    "GTSRB": PublishedFacts(
        "GTSRB",
        "Stallkamp et al. 2012",
        _train_test(26_640, 12_630),
        43,
        "several sizes, colour",
        duplicates=DRAWN_FROM_SIGNS,
    ),
    "INaturalist": PublishedFacts(
        "iNaturalist 2021",
        "Van Horn et al. 2021",
        {"train": 2_686_843, "validation": 100_000},
        10_000,
        "several sizes, colour",
        test="validation",
    ),
    "ImageNet": PublishedFacts(
        "ImageNet 2012",
        "Russakovsky et al. 2015",
        {"train": 1_281_167, "validation": 50_000},
        1_000,
        "several sizes, colour",
        licence="for non-commercial research and education only",
        label_noise=f"about 5.83 % of the validation labels are wrong ({NORTHCUTT})",
        test="validation",
    ),
    "Imagenette": PublishedFacts(
        "Imagenette",
        "Howard, fast.ai",
        {"train": 9_469, "validation": 3_925},
        10,
        "several sizes, colour",
        test="validation",
        notes=("its pictures are ImageNet's: a network pretrained on ImageNet has seen them",),
    ),
    "LFWPeople": PublishedFacts(
        "Labeled Faces in the Wild",
        "Huang et al. 2007",
        {"all": 13_233},
        5_749,
        "250×250, colour",
        notes=("most persons have one picture only",),
    ),
    "Omniglot": PublishedFacts(
        "Omniglot, background",
        "Lake, Salakhutdinov and Tenenbaum 2015",
        {"all": 19_280},
        964,
        "105×105, black and white",
    ),
    "OxfordIIITPet": PublishedFacts(
        "Oxford-IIIT Pet",
        "Parkhi et al. 2012",
        _train_test(3_680, 3_669),
        37,
        "several sizes, colour",
        licence="CC BY-SA 4.0",
    ),
    "Places365": PublishedFacts(
        "Places365-Standard",
        "Zhou et al. 2018",
        {"train": 1_803_460, "validation": 36_500},
        365,
        "several sizes, colour",
        test="validation",
    ),
    "RenderedSST2": PublishedFacts(
        "Rendered SST2",
        "Radford et al. 2021",
        _three(6_920, 872, 1_821),
        2,
        "448×448, colour",
        notes=("pictures of sentences: the class is read, not seen",),
    ),
    "StanfordCars": PublishedFacts(
        "Stanford Cars", "Krause et al. 2013", _train_test(8_144, 8_041), 196, "several sizes, colour"
    ),
    "SUN397": PublishedFacts("SUN397", "Xiao et al. 2010", {"all": 108_754}, 397, "several sizes, colour"),
}

VARIANTS: Mapping[tuple[str, str], tuple[str, dict[str, int], int]] = {
    ("EMNIST", "byclass"): ("EMNIST byclass", _train_test(697_932, 116_323), 62),
    ("EMNIST", "bymerge"): ("EMNIST bymerge", _train_test(697_932, 116_323), 47),
    ("EMNIST", "letters"): ("EMNIST letters", _train_test(124_800, 20_800), 26),
    ("EMNIST", "digits"): ("EMNIST digits", _train_test(240_000, 40_000), 10),
    ("EMNIST", "mnist"): ("EMNIST mnist", _train_test(60_000, 10_000), 10),
    ("FGVCAircraft", "family"): ("FGVC Aircraft, families", _three(3_334, 3_333, 3_333), 70),
    ("FGVCAircraft", "manufacturer"): ("FGVC Aircraft, manufacturers", _three(3_334, 3_333, 3_333), 30),
    ("INaturalist", "2021_mini"): (
        "iNaturalist 2021 mini",
        {"train": 500_000, "validation": 100_000},
        10_000,
    ),
    ("Omniglot", "evaluation"): ("Omniglot, evaluation", {"all": 13_180}, 659),
    ("OxfordIIITPet", "binary-category"): ("Oxford-IIIT Pet, cat or dog", _train_test(3_680, 3_669), 2),
}
"""Title, images and classes of a variant that differs from the first."""
UNKNOWN_VARIANTS = {("INaturalist", year) for year in ("2017", "2018", "2019")}


def torchvision_facts(name: str, variant: str | None = None) -> PublishedFacts | None:
    """What is published of a set of torchvision; None of a variant that we do not know. Raises ConfigError
    for a name or a variant that is not there."""
    _, chosen = torchvision_set(name, "Smiling" if name == "CelebA" and variant is None else variant)
    if (name, chosen) in UNKNOWN_VARIANTS:
        return None
    facts = FACTS[name]
    if (name, chosen) not in VARIANTS:
        return facts
    title, images, classes = VARIANTS[name, chosen]
    return replace(facts, title=title, images=images, classes=classes)
