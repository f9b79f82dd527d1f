"""Drift: what is compared, which copies are left out, what is found of planted drifts, and how often sets
alike are said to differ."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checked_data import photographs
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.evaluation.compared_sets import files_without_classes
from stresslens.evaluation.data_comparison import DataComparison
from stresslens.evaluation.drift import compare_sets
from stresslens.evaluation.network_features import features_of_network
from stresslens.evaluation.picture_features import picture_features, picture_properties
from stresslens.evaluation.picture_set import PictureSet, common_shape
from stresslens.plugins.datasets.digits import digits

DIGITS = digits()
WHOLE = torch.cat([split.floats(split.images[:]) for split in DIGITS.splits.values()])
LABELS = torch.cat([split.labels for split in DIGITS.splits.values()])


def a_set(x: Tensor, labels: Tensor | None = None, name: str = "a") -> PictureSet:
    y = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    names = [f"{name}[{k}]" for k in range(len(x))]
    own = (y.numpy(), tuple("0123456789")) if labels is not None else (np.empty(0, np.int64), ())
    return PictureSet(name, names, len(x), splits=[Split(x, y, 1.0)], labels=own[0], classes=own[1])


def halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The places of 2 n random digits, in two halves."""
    order = torch.randperm(len(WHOLE), generator=torch.Generator().manual_seed(seed))
    return order[:n], order[n : 2 * n]


def compared(a: Tensor, b: Tensor, changed: Tensor | None = None) -> DataComparison:
    """The comparison of digits at these places; `changed` takes the place of B's pictures."""
    pictures = WHOLE[b] if changed is None else changed
    return compare_sets(a_set(WHOLE[a], LABELS[a]), a_set(pictures, LABELS[b], "b"))


def as_jpeg(x: Tensor, quality: int) -> Tensor:
    again = []
    for image in (255 * x[:, 0]).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        again.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(again))[:, None].float() / 255


def test_properties_of_pictures_drawn_by_hand() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x[0, 0] = 1  # red
    x[1, :, :, 2:] = 1  # half white
    found = {name: values.tolist() for name, values in picture_properties(x).items()}
    assert found["brightness"] == pytest.approx([1 / 3, 1 / 2])
    assert found["contrast"] == pytest.approx([0, 1 / 2])
    assert found["saturation"] == pytest.approx([1, 0])
    assert found["sharpness"] == pytest.approx([0, np.sqrt(1 / 2)])  # ±1 on both sides of the edge
    assert "saturation" not in picture_properties(x[:, :1])


def test_the_energies_are_those_of_the_cosine_transform() -> None:
    from scipy.fft import dctn

    x = torch.rand(3, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    blocks = x[:, 0].numpy().reshape(3, 2, 8, 3, 8).swapaxes(2, 3)
    expected = np.log((dctn(blocks, axes=(3, 4), norm="ortho") ** 2).mean((1, 2)) + 1e-6).reshape(3, 64)
    assert picture_features(x)[:, -64:].numpy() == pytest.approx(expected, abs=1e-4)
    assert picture_features(x).shape == (3, 64 + 4 + 16 + 64)
    assert picture_features(torch.rand(2, 3, 5, 3)).isfinite().all()


def test_pictures_of_both_sets_are_named_and_left_out() -> None:
    data = photographs(120)
    x = data.train.floats(data.train.images[:])
    b = torch.cat([x[40:], x[:1], x[3:4].flip(3), x[50:51]])
    found = compare_sets(a_set(x[:40]), a_set(b, name="b"))
    assert found.shared == (("a[0]", "b[32]"), ("a[3]", "b[33]"))
    assert (found.a.compared, found.b.compared) == (38, 32)
    assert "2 pairs of copies in A and B, left out of both: b[32] = a[0] and b[33] = a[3]" in found.sentences
    assert "1 image of B repeats another one and is left out" in found.notes


@pytest.mark.breadth(1)
@pytest.mark.parametrize("with_classes", [True, False])
def test_look_alikes_of_either_set_are_no_copies(with_classes: bool) -> None:
    """Digits look alike, photographs do not: copies cannot be told, whichever set has the digits."""
    data = photographs(120)
    photos = a_set(data.train.floats(data.train.images[:]).mean(1, keepdim=True), name="photos")
    a, _ = halves(300, 0)
    digits_set = a_set(WHOLE[a], LABELS[a] if with_classes else None, "digits")
    for which, pair in (("A", (digits_set, photos)), ("B", (photos, digits_set))):
        found = compare_sets(*pair)
        assert any(f"images of {which} of one class are so similar" in note for note in found.notes)
        assert {found.a.compared, found.b.compared} == {300, len(photos)}


def test_a_set_that_the_other_has_already_leaves_nothing() -> None:
    a, _ = halves(60, 0)
    with pytest.raises(DataError, match=r"A, a: 0 images of 60 left .* needs at least 20"):
        compared(a, a)


def test_the_image_that_is_least_like_a() -> None:
    a, b = halves(150, 2)
    changed = WHOLE[b].clone()
    changed[17] = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = compared(a, b, changed)
    assert found.least_like[0].image == "b[17]"
    assert found.least_like[0].p == pytest.approx(1 / 151)


def test_class_shares_that_moved() -> None:
    a, b = halves(400, 3)
    b = b[(LABELS[b] != 3) | (torch.arange(400) % 8 == 0)]
    found = compared(a, b)
    (shares,) = (each for each in found.properties if each.name.startswith("class shares"))
    assert shares.name == "class shares (most: 3)"
    assert shares.real
    assert found.differs
    assert shares.difference.high < 0
    assert {name: pair for name, *pair in found.class_shares}["3"][1] == pytest.approx(shares.b)


def test_groups_are_spoken_of() -> None:
    a, b = (a_set(WHOLE[rows], name=name) for rows, name in zip(halves(40, 0), "ab"))
    grouped = replace(b, splits=[replace(b.splits[0], columns={"group": np.arange(40) // 4})])
    assert any("images of one group count as independent" in note for note in compare_sets(a, grouped).notes)
    assert not any("group" in note for note in compare_sets(a, b).notes)


def test_sets_without_common_classes_have_no_class_shares() -> None:
    a, b = halves(50, 0)
    other = replace(a_set(WHOLE[b], LABELS[b], "b"), classes=tuple("abcdefghij"))
    found = compare_sets(a_set(WHOLE[a], LABELS[a]), other)
    assert found.class_shares == ()
    assert {each.name for each in found.properties} == {"brightness", "contrast", "sharpness"}


def test_shapes_that_differ_are_brought_to_the_smaller_and_said() -> None:
    grey, colour = a_set(torch.rand(30, 1, 10, 8)), a_set(torch.rand(30, 3, 6, 12))
    shape, note = common_shape(grey, colour)
    assert shape == (1, 6, 8)
    assert "1×10×8 and 3×6×12" in note
    found = compare_sets(grey, colour)
    assert note in found.sentences
    assert "saturation" not in {each.name for each in found.properties}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A folder of 40 pictures without classes, one of them damaged, and one of 40 with two classes."""
    random = np.random.default_rng(0)
    for folder in ("new", "old/cat", "old/dog"):
        (tmp_path / folder).mkdir(parents=True)
    for k in range(40):
        for folder in ("new", ("old/cat", "old/dog")[k % 2]):
            coarse = Image.fromarray(random.integers(0, 255, (5, 5, 3), dtype=np.uint8))
            coarse.resize((30, 20), Image.Resampling.BICUBIC).save(tmp_path / folder / f"{k:02}.png")
    (tmp_path / "new" / "07.png").write_bytes(b"no picture")
    return tmp_path


def test_a_folder_without_classes(folders: Path) -> None:
    files = files_without_classes(folders / "new")
    assert files is not None
    assert len(files) == 40
    assert files_without_classes(folders / "old") is None
    assert files_without_classes(folders / "old" / "cat" / "00.png") == [folders / "old" / "cat" / "00.png"]
    new = PictureSet.of_files("new", files, 30, 0)
    old = PictureSet.of_files("old", sorted((folders / "old").glob("*/*")), 5000, 0)
    assert (len(new), new.images) == (30, 40)
    found = compare_sets(old, new)
    assert common_shape(old, new) == ((3, 20, 30), "")
    assert {each.name for each in found.properties} >= {"brightness", "saturation", "file, bytes"}
    lost = sum(str(files[7]) == name for name in new.names)
    assert (found.a.compared, found.b.compared) == (40, 30 - lost)
    assert (lost == 1) == any("1 file cannot be read" in note for note in found.notes)
    assert found.as_json()["b"]["sampled"] == 30


def test_features_of_the_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))
    a, b = halves(150, 5)
    network = features_of_network(net, (1, 8, 8))
    assert network(WHOLE[:7]).equal(net[:3](WHOLE[:7]))
    found = compare_sets(a_set(WHOLE[a]), a_set(1 - WHOLE[b], name="b"), network=network)
    assert found.features == "network"
    assert found.auroc.low > 0.9


DRIFTS = {
    "brighter by 5 %": lambda x: (1.05 * x).clamp(0, 1),
    "JPEG of quality 75": lambda x: as_jpeg(x, 75),
    "a pixel to the right": lambda x: x.roll(1, 3),
}


@pytest.mark.breadth(1)
@pytest.mark.parametrize("drift", DRIFTS)
def test_planted_drifts_are_found(drift: str) -> None:
    """Of 400 digits against 400 changed ones."""
    a, b = halves(400, 1)
    found = compared(a, b, DRIFTS[drift](WHOLE[b]))
    assert found.differs, found.sentence
    assert found.sentence.startswith("B differs from A: a classifier tells them apart (AUROC 0.")


def test_halves_of_one_set_are_not_told_apart_and_what_was_missed_is_said() -> None:
    found = compared(*halves(400, 1))
    assert not found.differs
    assert found.sentence.startswith("no difference found: AUROC 0.")
    assert f"below an AUROC of {found.detectable:.3f} would have been missed" in found.sentence
    assert 0.5 < found.detectable < 0.65


def test_parts_that_were_drawn_class_by_class_are_more_alike_than_chance() -> None:
    """Pairs of neighbours by their brightness, one in each set: an AUROC below a half."""
    order = torch.argsort(WHOLE.mean((1, 2, 3)))[:800]
    found = compared(order[::2], order[1::2])
    alike = "A and B are more alike than two random samples, as parts drawn class by class are"
    assert (found.auroc.high < 0.5) == (alike in found.sentences)
    far = replace(found, auroc=replace(found.auroc, value=0.4, low=0.35, high=0.45))
    assert alike in far.sentences


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated_and_drifts_are_found_often() -> None:
    """200 draws of 100 digits against 100: any alarm counts. The same draws with a drift."""
    alarms = sum(compared(*halves(100, seed)).differs for seed in range(200))
    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)
    for change in DRIFTS.values():
        draws = [halves(100, seed) for seed in range(40)]
        assert np.mean([compared(a, b, change(WHOLE[b])).differs for a, b in draws]) >= 0.5


def test_a_split_of_files_is_refused(folders: Path) -> None:
    from stresslens.evaluation.compared_sets import set_without_classes

    with pytest.raises(ConfigError, match="without classes, which has no test split"):
        set_without_classes(folders / "new", "test", 10, 0)
