"""The data check finds what was planted, and nothing in data that is fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checked_data import found, photographs, with_images
from PIL import Image

from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.types import Finding
from stresslens.evaluation import data_check
from stresslens.evaluation.data_check import check_data, chosen_findings, data_findings


def test_data_that_is_fit_shows_no_sign() -> None:
    assert found(photographs()) == {}
    statuses = {finding.audit: finding.status for finding in check_data(photographs())}
    assert statuses["group leakage"] == statuses["label from file size"] == "not checked"
    assert statuses["near duplicates across splits"] == "no sign"


def test_exact_duplicates_within_and_across_splits_and_their_labels() -> None:
    data = photographs()
    assert isinstance(data.train.images, torch.Tensor)
    data = with_images(data, "train", [5], data.train.images[9][None], data.train.labels[9][None])
    data = with_images(
        data,
        "test",
        [3, 4],
        data.train.images[[20, 21]],
        torch.stack([data.train.labels[20], 3 - data.train.labels[21]]),
    )
    signs = found(data)
    assert signs["exact duplicates within a split"].items == ("train[9] = train[5]",)
    across = signs["exact duplicates across splits"]
    assert across.items == ("test[3] = train[20]", "test[4] = train[21]")
    assert across.severity == "serious"
    assert "2 of 48 test images" in across.evidence
    labels = signs["one image, two labels"]
    assert len(labels.items) == 1
    assert labels.items[0].startswith("train[21] (class ")
    assert "near duplicates across splits" not in signs


def test_constant_images() -> None:
    data = photographs()
    flat = torch.full((2, 3, 32, 32), 7, dtype=torch.uint8)
    flat[1] = 9
    sign = found(with_images(data, "train", [3, 8], flat))["constant images"]
    assert sign.items == ("train[3]", "train[8]")
    assert "2 of 240" in sign.evidence


def of_counts(*counts: int) -> Data:
    whole = photographs(n=4 * max(counts), classes=len(counts))
    assert whole.validation is not None
    assert whole.test is not None
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    source = photographs(n=3 * len(labels), classes=2)
    assert isinstance(source.train.images, torch.Tensor)
    names = tuple(f"class {k}" for k in range(len(counts)))
    return Data(Split(source.train.images[: len(labels)], labels), None, None, names)


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("counts", "signs"),
    [
        ((40, 40), {}),
        ((100, 30), {"class imbalance": "minor"}),
        ((400, 30), {"class imbalance": "serious"}),
        ((30, 12), {"tiny classes": "minor"}),
        ((30, 4), {"class imbalance": "minor", "tiny classes": "serious"}),
    ],
)
def test_imbalance_and_tiny_classes(counts: tuple[int, ...], signs: dict[str, str]) -> None:
    assert {
        name: sign.severity for name, sign in found(of_counts(*counts)).items() if "class" in name
    } == signs


def test_a_class_without_test_images() -> None:
    data = photographs()
    assert data.test is not None
    kept = data.test.select((data.test.labels != 2).nonzero().flatten())
    sign = found(replace(data, test=kept))["missing classes"]
    assert sign.items == ("test: class 2",)


@pytest.mark.slow
def test_groups_on_two_sides() -> None:
    data = photographs()
    sizes = {name: len(split) for name, split in data.splits.items()}
    names = {name: np.array([f"{name} {k % 7}" for k in range(n)], dtype=object) for name, n in sizes.items()}
    apart = replace(
        data, **{name: replace(split, columns={"group": names[name]}) for name, split in data.splits.items()}
    )  # type: ignore[arg-type]
    assert "group leakage" not in found(apart)
    names["test"][5] = "train 3"
    together = replace(
        data, **{name: replace(split, columns={"group": names[name]}) for name, split in data.splits.items()}
    )  # type: ignore[arg-type]
    sign = found(together)["group leakage"]
    assert sign.items == ("train 3: in train and test",)


@pytest.mark.slow
def test_labels_given_away_by_colour_or_by_file_size() -> None:
    data = photographs()
    assert isinstance(data.train.images, torch.Tensor)
    tinted = data.train.images.clone()
    tinted[data.train.labels == 0, 0] = 255
    tinted[data.train.labels == 1, 1] = 255
    tinted[data.train.labels == 2, 2] = 255
    signs = found(replace(data, train=replace(data.train, images=tinted)))
    assert signs["label from mean colour"].severity == "serious"
    heavy = np.random.default_rng(0).integers(900, 1100, len(data.train)) + 5000 * data.train.labels.numpy()
    signs = found(replace(data, train=replace(data.train, columns={"bytes": heavy})))
    assert signs["label from file size"].severity == "serious"
    assert "100.0 %" in signs["label from file size"].evidence


@pytest.mark.slow
def test_findings_are_kept_for_the_same_images_and_looked_for_again_in_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(data_check, "check_data", lambda data: calls.append(data.name) or check_data(data))
    data = photographs(seed=7)
    first = data_findings(data)
    assert data_findings(data) == first
    assert len(calls) == 1
    data_findings(photographs(seed=8))
    assert len(calls) == 2


def test_files_are_named(tmp_path: Path) -> None:
    from stresslens.plugins.datasets.folder import folder

    for label in ("a", "b"):
        (tmp_path / "p" / label).mkdir(parents=True)
        for k in range(10):
            pixels = np.random.default_rng([k, ord(label)]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "p" / label / f"{k}.png")
    (tmp_path / "p" / "b" / "copy.png").write_bytes((tmp_path / "p" / "a" / "3.png").read_bytes())
    sign = found(folder(path=str(tmp_path / "p")))["one image, two labels"]
    assert set(sign.items[0].replace(" (a)", "").replace(" (b)", "").split(" = ")) == {
        "a/3.png",
        "b/copy.png",
    }


@pytest.mark.slow
def test_findings_change_with_the_columns_and_with_what_was_noticed_while_reading() -> None:
    data = photographs(seed=9)
    grouped = replace(
        data,
        **{
            name: replace(split, columns={"group": np.array(["all"] * len(split), dtype=object)})
            for name, split in data.splits.items()
        },
    )  # type: ignore[arg-type]
    statuses = [{f.audit: f.status for f in data_findings(each)}["group leakage"] for each in (data, grouped)]
    assert statuses == ["not checked", "sign"]
    noticed = Finding("unreadable files", "sign", "minor", "1 of 9 files", 9)
    assert data_findings(replace(data, findings=(noticed,)))[0] == noticed


def test_copies_within_a_split_of_an_image_that_stands_in_another_too() -> None:
    data = photographs()
    assert isinstance(data.train.images, torch.Tensor)
    both = data.train.images[[7, 7]]
    signs = found(with_images(data, "test", [0, 1], both, data.train.labels[[7, 7]]))
    assert signs["exact duplicates within a split"].items == ("test[1] = test[0]",)
    assert signs["exact duplicates across splits"].items == ("test[0] = train[7]", "test[1] = train[7]")


@pytest.mark.slow
def test_class_names_that_look_alike_are_serious() -> None:
    names = [["cat", "Cat ", "dog", "emu"], ["1", "2", "3", "4"]]
    alike, apart = (found(replace(photographs(), classes=tuple(each))) for each in names)
    assert (alike["class names"].severity, alike["class names"].items) == ("serious", ("'cat' = 'Cat '",))
    assert "class names" not in apart


def test_the_camera_and_the_type_of_files_are_read(tmp_path: Path) -> None:
    from stresslens.plugins.datasets.folder import folder

    for label, (make, model, kind) in enumerate((("Nikon ", "D90", "jpg"), ("", "iPhone 12\0", "webp"))):
        (tmp_path / "p" / str(label)).mkdir(parents=True)
        for k in range(30):
            random = np.random.default_rng([k, label])
            picture = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            exif = Image.Exif()
            if make:
                exif[0x010F] = make
            exif[0x0110] = model
            picture.save(tmp_path / "p" / str(label) / f"{k}.{kind}", exif=exif)
    data = folder(path=str(tmp_path / "p"))
    assert set(data.train.columns["camera"]) == {"Nikon D90", "iPhone 12"}
    assert set(data.train.columns["format"]) == {"JPEG", "WEBP"}
    signs = found(data)
    assert signs["label from camera"].severity == signs["label from file type"].severity == "serious"
    plain = tmp_path / "plain"
    for label in "ab":
        (plain / label).mkdir(parents=True)
        for k in range(5):
            Image.fromarray(np.full((8, 8), 20 * k, np.uint8)).save(plain / label / f"{k}.png")
    assert "camera" not in folder(path=str(plain)).train.columns


def test_own_checks_and_options(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from stresslens.plugins import sign\n\n"
        "def too_red(pictures, *, share: float = 0.5):\n"
        "    return sign('too red', f'{share:g}', len(pictures.labels), 'use less red')\n\n"
        "def wrong(pictures):\n    return True\n"
    )
    checks = [{"mine.py:too_red": {"share": 0.25}}, {"blurred_images": {"sharpness": 0.9}}]
    own, blurred = chosen_findings(photographs(), checks, base=tmp_path)
    assert (own.audit, own.evidence, own.n) == ("too red", "0.25", 240)
    assert "240 of 240" in blurred.evidence
    with pytest.raises(ConfigError, match=r"check wrong returned bool; expected a Finding"):
        chosen_findings(photographs(), ["mine.py:wrong"], base=tmp_path)
