"""Only training images decide how all images are decoded: their channels, and white in 16-bit files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import stresslens as sl
from stresslens.core.errors import DataError, Notice
from stresslens.core.image_files import Frame, decode
from stresslens.plugins.datasets._pixel_format import _among
from stresslens.plugins.datasets.folder import folder

SIZES = {"train": 8, "validation": 4, "test": 4}


def parts(root: Path, *, coloured: tuple[str, ...] = (), mode: str = "RGB") -> Path:
    """Grey pictures; the first one of each part in `coloured` has another mode."""
    generator = np.random.default_rng(0)
    for part, n in SIZES.items():
        for c, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for k in range(n):
                grey = generator.normal(90 + 60 * c, 40, (6, 6)).clip(0, 255).astype(np.uint8)
                shown = Image.fromarray(grey)
                if part in coloured and c == k == 0:
                    shown = Image.merge("RGB", [shown, shown.point(lambda v: 255 - v), shown]).convert(mode)
                shown.save(root / part / name / f"{k}.png")
    return root


@pytest.mark.breadth(2)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_picture_that_is_not_trained_on_does_not_make_the_network(
    tmp_path: Path, part: str, mode: str
) -> None:
    grey = folder(path=str(parts(tmp_path / "grey")))
    other = folder(path=str(parts(tmp_path / "other", coloured=(part,), mode=mode)))
    assert grey.shape == other.shape == (1, 6, 6)
    assert torch.equal(grey.train.images[:], other.train.images[:])
    (note,) = other.notes
    assert "1 other images in colours became grey" in note
    assert f"{part}/dark/0.png" in note
    assert not grey.notes


def test_a_drawn_test_picture_in_colours_decides_nothing_either(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    generator = np.random.default_rng(1)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for k in range(10):
            Image.fromarray(generator.integers(0, 256, (6, 6), dtype=np.uint8)).save(root / name / f"{k}.png")
    before = folder(path=str(root))
    assert before.test is not None
    chosen = root / str(before.test.columns["file"][0])
    Image.open(chosen).convert("RGB").save(chosen)
    after = folder(path=str(root))
    assert after.shape == (1, 6, 6)
    assert torch.equal(before.train.images[:], after.train.images[:])
    assert after.test is not None
    assert torch.equal(before.test.images[:], after.test.images[:])  # grey as before


def test_a_training_picture_in_colours_decides(tmp_path: Path) -> None:
    assert folder(path=str(parts(tmp_path / "p", coloured=("train",)))).shape == (3, 6, 6)


def test_a_larger_test_picture_is_refused_in_words(tmp_path: Path) -> None:
    root = parts(tmp_path / "p")
    Image.new("L", (9, 6)).save(root / "test" / "dark" / "0.png")
    with pytest.raises(DataError, match=r"differ in size.*set `size`"):
        folder(path=str(root))


# --- 10, 12, 14 and 16 bits ---------------------------------------------------------------------------------


def deep(
    root: Path, white: int, *, suffix: str = "png", brightest: dict[str, int] | None = None
) -> tuple[Path, dict[str, np.ndarray]]:
    """Pictures of 16 bits with values up to `white`, and the values by name. The value of one pixel of
    each part can be given."""
    generator = np.random.default_rng(white)
    values = {}
    for part, n in SIZES.items():
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for k in range(n):
                picture = generator.integers(0, white + 1, (6, 6)).astype(np.uint16)
                picture[0, 0] = (brightest or {}).get(part, white)
                Image.fromarray(picture).save(root / part / name / f"{k}.{suffix}")
                values[f"{part}/{name}/{k}.{suffix}"] = picture
    return root, values


@pytest.mark.breadth(3)
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_the_grey_levels_of_a_camera_are_kept(tmp_path: Path, bits: int, suffix: str) -> None:
    white = 2**bits - 1
    root, values = deep(tmp_path / "p", white, suffix=suffix)
    data = folder(path=str(root))
    assert data.white == white
    for split in data.splits.values():
        expected = np.stack([np.round(values[str(file)] / white * 255) for file in split.columns["file"]])
        assert np.abs(split.images[:].numpy()[:, 0].astype(float) - expected).max() == 0
    (note,) = data.notes
    assert f"white is {white:,}" in note
    assert "kept with 8 bits, 256 levels" in note


def test_sixteen_bits_are_taken_as_they_were(tmp_path: Path) -> None:
    root, values = deep(tmp_path / "p", 65_535)
    data = folder(path=str(root))
    first = values[str(data.train.columns["file"][0])]
    assert np.array_equal(data.train.images[:1].numpy()[0, 0], first >> 8)
    assert data.white == 65_535


def test_test_images_do_not_decide_about_white(tmp_path: Path) -> None:
    root, _ = deep(tmp_path / "p", 900, brightest={"test": 5_000, "validation": 1_500})
    data = folder(path=str(root))
    assert data.white == 1_023
    assert data.test is not None
    assert (data.test.images[:][:, 0, 0, 0] == 255).all()
    assert "16 other images have brighter pixels" in data.notes[0]


def test_white_can_be_given(tmp_path: Path) -> None:
    root, values = deep(tmp_path / "p", 900)
    data = folder(path=str(root), white=4_095)
    first = values[str(data.train.columns["file"][0])]
    assert np.array_equal(data.train.images[:1].numpy()[0, 0], np.round(first / 4_095 * 255))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_twelve_bits_are_kept(suffix: str, channels: int) -> None:
    """Pillow reads the upper 8 of 16 bits in colours: 16 levels of 12 bits."""
    values = np.random.default_rng(0).integers(0, 4_096, (20, 20, channels)).astype(np.uint16)
    if channels == 4:
        values[..., 3] = 65_535
    content = cv2.imencode(f".{suffix}", values[..., [2, 1, 0, 3][:channels]])[1].tobytes()
    picture = decode(content, Frame(3, None, white=4_095))
    assert picture.peak == 4_095
    assert np.array_equal(picture.pixels, np.round(values[..., :3] / 4_095 * 255).transpose(2, 0, 1))


def test_white_of_the_training_is_white_of_the_pictures_that_are_classified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.saved_model import frame_of

    root, values = deep(tmp_path / "p", 4_095)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(Notice, match="data: 32 images have more than 8 bits"):
        run = sl.train("linear", {"folder": {"path": "p"}}, epochs=1, precision="float32", threads=1)
    assert frame_of(RunFolder(run.folder)).white == 4_095
    name = "test/a/0.png"
    pixels = decode((root / name).read_bytes(), frame_of(RunFolder(run.folder))).pixels
    assert np.array_equal(pixels[0], np.round(values[name] / 4_095 * 255))


class Counted(str):
    """A name that counts how often it is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_names_are_looked_up_and_not_compared_in_pairs() -> None:
    n = 2000
    names = np.array([Counted(f"{k}.png") for k in range(n)], dtype=object)
    some = np.array([Counted(f"{k}.png") for k in range(0, n, 2)], dtype=object)
    split = SimpleNamespace(columns={"file": some})
    found = _among(names, [split])  # type: ignore[list-item]
    assert np.array_equal(found, np.arange(n) % 2 == 0)
    assert Counted.compared < 5 * n
