"""A user's own images: every shape they come in."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pets import fill, picture, pixels, table, tarred, zipped
from PIL import Image

from stresslens.config import registry
from stresslens.core.errors import ConfigError, DataError
from stresslens.plugins.datasets.folder import folder

REAL = os.environ.get("STRESSLENS_DATA")


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    data = folder(path=str(fill(tmp_path / "pets")))
    assert (data.name, data.classes, data.shape) == ("pets", ("cat", "dog", "owl"), (3, 6, 5))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 18,
        "validation": 6,
        "test": 6,
    }
    for split in data.splits.values():
        assert torch.equal(split.images[:][:, 0, 0, 0].long(), split.labels)
        names = [data.classes[label] for label in split.labels]
        assert [file.split("/")[0] for file in split.columns["file"]] == names
        assert (
            split.images[:][:, 1, 0, 0].numpy() == [int(file[-7:-4]) for file in split.columns["file"]]
        ).all()
        assert (split.columns["width"] == 5).all()
        assert (split.columns["height"] == 6).all()


def test_other_names_for_captions(tmp_path: Path) -> None:
    """The labels stay those of the folders."""
    root = str(fill(tmp_path / "pets"))
    plain = folder(path=root)
    for names in ({"dog": "puppy"}, ["cat", "puppy", "owl"]):
        data = folder(path=root, names=names)
        assert data.classes == ("cat", "puppy", "owl")
        assert torch.equal(data.train.labels, plain.train.labels)
        assert data.fingerprint != plain.fingerprint
    chosen = folder(path=root, classes=["owl", "cat"], names=["night bird", "kitten"])
    assert chosen.classes == ("night bird", "kitten")
    assert {file.split("/")[0] for file in chosen.train.columns["file"][chosen.train.labels == 0]} == {"owl"}
    for wrong, said in (
        ({"dgo": "puppy"}, "no class 'dgo'; did you mean 'dog'"),
        (["cat", "dog"], "has 3 classes .cat, dog, owl., and 2 names are given"),
        ({"dog": "cat"}, "several classes of pets would be called cat"),
    ):
        with pytest.raises(ConfigError, match=said):
            folder(path=root, names=wrong)


def test_some_of_the_classes(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    some, whole = folder(path=str(root), classes=["owl", "cat"]), folder(path=str(root))
    assert some.classes == ("owl", "cat")
    for split in some.splits.values():
        assert [file.split("/")[0] for file in split.columns["file"]] == [
            some.classes[label] for label in split.labels
        ]
    assert {name: len(split) for name, split in some.splits.items()} == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }
    assert len(whole.train) == 18
    for classes, said in (
        (["owl", "cow"], "no class 'cow'; did you mean 'owl'"),
        (["owl"], "at least two"),
        (["owl", "owl"], "each once"),
    ):
        with pytest.raises(ConfigError, match=said):
            folder(path=str(root), classes=classes)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_parts_given_as_folders(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for part, n in zip(names, (5, 3, 2)):
        fill(tmp_path / "pets" / part, n=n)
    data = folder(path=str(tmp_path / "pets"))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 15,
        "validation": 9,
        "test": 6,
    }
    assert data.train.columns["file"][0].startswith(names[0])
    with pytest.raises(ConfigError, match="already has a test part"):
        folder(path=str(tmp_path / "pets"), test=0.1)


PARTS: dict[tuple[str, ...], dict[str, int] | str] = {
    (): {"train": 18, "validation": 6, "test": 6},
    ("train",): {"train": 24, "validation": 6},
    ("train", "val"): {"train": 30, "validation": 30},
    ("train", "test"): {"train": 24, "validation": 6, "test": 30},
    ("train", "val", "test"): {"train": 30, "validation": 30, "test": 30},
    ("test",): "train",
    ("val",): "train",
    ("val", "test"): "train",
}
"""What the documents say of part folders: the sizes with 30 images in each, or what is missing."""


@pytest.mark.breadth(3)
@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: " and ".join(parts) or "none")
def test_which_parts_are_given_and_which_are_drawn(tmp_path: Path, parts: tuple[str, ...]) -> None:
    root, expected = tmp_path / "pets", PARTS[parts]
    for part in parts or (".",):
        fill(root / part)
    rows = [[str(p.relative_to(root)), p.parent.name, p.parts[-3]] for p in sorted(root.rglob("*.png"))]
    header = ["path", "label", "split" if parts else "from"]
    for path in (str(root), table(root, [header, *rows])):
        if isinstance(expected, str):
            with pytest.raises(DataError, match=f"(none of them is `|no ){expected}"):
                folder(path=path)
            continue
        assert {name: len(split) for name, split in folder(path=path).splits.items()} == expected
        for part, option in (("val", "validation"), ("test", "test")):
            if part in parts or (parts and part == "test"):
                with pytest.raises(
                    ConfigError, match=f"leave .*`{option}` out|leave the option `{option}` out"
                ):
                    folder(path=path, **{option: 0.5})  # type: ignore[arg-type]
    if "train" in parts and "val" not in parts:
        split = folder(path=str(root), validation=0).splits
        assert ("validation" not in split, len(split["train"])) == (True, 30)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_around_a_whole_archive_is_skipped_and_told(
    tmp_path: Path, pack: Callable[..., Path], part: str
) -> None:
    data = folder(path=str(pack(fill(tmp_path / "pets"), tmp_path / "pets.archive", f"{part}/")))
    assert {name: len(split) for name, split in data.splits.items()} == PARTS[()]
    assert data.notes == (f"everything is in one folder, {part!r}, which was skipped",)


def test_without_a_validation_folder_it_is_drawn_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train", n=10)
    fill(tmp_path / "pets" / "test", n=2)
    data = folder(path=str(tmp_path / "pets"))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 24,
        "validation": 6,
        "test": 6,
    }
    assert all(file.startswith("train/") for file in data.splits["validation"].columns["file"])


@pytest.mark.breadth(2)
@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("prefix", ["", "pets/", "./a/pets/"])
def test_an_archive_is_its_folder(tmp_path: Path, pack: Callable[..., Path], prefix: str) -> None:
    root = fill(tmp_path / "pets")
    archived = folder(path=str(pack(root, tmp_path / "pets.archive", prefix)))
    plain = folder(path=str(root))
    assert archived.fingerprint == plain.fingerprint
    assert all(np.array_equal(a, b) for a, b in zip(pixels(archived).values(), pixels(plain).values()))


def test_a_table_with_groups_parts_and_columns(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    rows = [["path", "label", "split", "group", "camera"]]
    for name in ("cat", "dog"):
        rows += [
            [f"{name}/{k:03d}.png", name, "test" if k < 3 else "train", f"house {k % 4}", "AB"[k % 2]]
            for k in range(10)
        ]
    data = folder(path=table(root, rows), validation=4)
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    assert len(data.test) == 6
    assert set(data.train.columns) == {"file", "group", "camera", "width", "height", "bytes", "format"}
    assert set(data.train.columns["camera"]) == {"A", "B"}
    assert data.validation is not None
    assert not set(data.validation.columns["group"]) & set(data.train.columns["group"])


def test_a_parquet_table_is_the_csv(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = fill(tmp_path / "pets")
    rows = [[f"{name}/{k:03d}.png", name, "AB"[k % 2]] for name in ("cat", "dog") for k in range(10)]
    columns = {
        column: [row[place] for row in rows] for place, column in enumerate(("path", "label", "camera"))
    }
    parquet.write_table(pyarrow.table(columns), root / "table.parquet")
    one, other = (
        folder(path=str(root / "table.parquet")),
        folder(path=table(root, [["path", "label", "camera"], *rows])),
    )
    assert one.fingerprint == other.fingerprint
    assert one.train.columns["camera"].tolist() == other.train.columns["camera"].tolist()


def test_groups_of_folders_by_a_regular_expression(tmp_path: Path) -> None:
    data = folder(path=str(fill(tmp_path / "pets")), group=r"(\d)\.png$", test=0.3)
    groups = [set(split.columns["group"]) for split in data.splits.values()]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert set.union(*groups) == set("0123456789")
    with pytest.raises(ConfigError, match="does not match"):
        folder(path=str(tmp_path / "pets"), group=r"patient(\d)")
    with pytest.raises(ConfigError, match="not a regular expression"):
        folder(path=str(tmp_path / "pets"), group="(")
    with pytest.raises(ConfigError, match="no parentheses"):
        folder(path=str(tmp_path / "pets"), group=r"\d")


def test_links_and_later_members_of_a_tar(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "cat" / "link.png").symlink_to("000.png")
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.addfile(
            tarfile.TarInfo("pets/cat/000.png"), io.BytesIO(b"")
        )  # superseded by the next of its name
        for file in sorted(root.rglob("*.png")):
            archive.add(file, f"pets/{file.relative_to(root).as_posix()}")
    assert folder(path=str(tmp_path / "pets.tar")).fingerprint == folder(path=str(root)).fingerprint


def test_slices_that_are_named_are_told_by_whatever_their_number(tmp_path: Path) -> None:
    assert folder(path=str(fill(tmp_path / "pets")), slices=[]).slices == ()
    rows = [
        ["path", "label", "house"],
        *([f"{n}/00{k}.png", n, f"house {k}"] for n in ("cat", "dog") for k in range(10)),
    ]
    assert folder(path=table(tmp_path / "pets", rows), slices=["house"]).slices == ("house",)


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL and (Path(REAL) / "cifar10-jpeg.tar.xz").is_file()),
    reason="needs cifar10-jpeg.tar.xz under STRESSLENS_DATA",
)
def test_sixty_thousand_real_photographs(tmp_path: Path) -> None:
    archive = Path(str(REAL)) / "cifar10-jpeg.tar.xz"
    data = folder(path=str(archive))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 40_000,
        "validation": 10_000,
        "test": 10_000,
    }
    assert len(data.classes) == 10
    assert data.shape == (3, 32, 32)
    assert data.findings == ()
    assert data.test is not None
    assert data.test.labels.bincount().tolist() == [1000] * 10
    place = {str(file): k for k, file in enumerate(data.test.columns["file"])}
    with tarfile.open(archive) as members:
        for member in members:
            if member.name in place and place[member.name] % 50 == 0:
                content = members.extractfile(member)
                assert content is not None
                with Image.open(io.BytesIO(content.read())) as opened:
                    expected = np.asarray(opened.convert("RGB"))
                k = place[member.name]
                assert np.array_equal(data.test.images[k : k + 1][0].permute(1, 2, 0).numpy(), expected)
                assert data.classes[int(data.test.labels[k])] == member.name.split("/")[1]


def test_a_size_of_two_numbers_from_a_study_or_the_command_line(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    assert registry.resolve("datasets", {"folder": {"path": str(root), "size": [4, 8]}})().shape == (3, 4, 8)


def test_grey_pictures_are_grey_until_a_training_picture_has_colours(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "g" / name).mkdir(parents=True)
        for k in range(5):
            picture(0, k).convert("L").save(tmp_path / "g" / name / f"{k}.png")
    assert folder(path=str(tmp_path / "g")).shape == (1, 6, 5)
    assert folder(path=str(tmp_path / "g"), colours="rgb").shape == (3, 6, 5)
    picture(0, 7).save(tmp_path / "g" / "b" / "coloured.png")
    assert folder(path=str(tmp_path / "g"), test=0, validation=0).shape == (3, 6, 5)
    assert folder(path=str(tmp_path / "g"), colours="grey").shape == (1, 6, 5)


@pytest.mark.parametrize(
    "name", ["x" * 250, "\u202eשלום", "<script>alert(1)</script>".replace("/", "∕"), "a b'c\"d&e", "😀"]
)
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    data = folder(path=str(fill(tmp_path / "pets", (name, "other"))))
    assert name in data.classes
    assert any(file.startswith(f"{name}/") for file in data.train.columns["file"])


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    try:
        os.rename(root / "cat" / "000.png", os.fsencode(root / "cat") + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    data = folder(path=str(root))
    assert "cat/caf\ufffd.png" in {file for split in data.splits.values() for file in split.columns["file"]}
