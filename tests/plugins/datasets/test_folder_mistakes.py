"""A user's own images: every way they can be wrong, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pets import fill, nasty, picture, table, tarred, zipped
from PIL import Image

from stresslens.core.errors import ConfigError, DataError
from stresslens.plugins.datasets.folder import folder


def test_unreadable_files_are_all_named_with_their_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        folder(path=str(nasty(tmp_path / "pets")))
    lines = str(caught.value).splitlines()
    assert lines[0] == "pets: 3 of 34 files cannot be read as images"
    assert [line.split(":")[0] for line in lines[1:4]] == [
        "cat/truncated.png",
        "dog/empty.jpg",
        "owl/text.png",
    ]
    assert "unreadable: skip" in lines[4]


def test_unreadable_files_are_left_out_counted_and_listed_and_nothing_takes_their_place(
    tmp_path: Path,
) -> None:
    data = folder(path=str(nasty(tmp_path / "pets")), unreadable="skip")
    files = [file for split in data.splits.values() for file in split.columns["file"]]
    assert len(files) == 31
    assert not {"cat/truncated.png", "dog/empty.jpg", "owl/text.png"} & set(files)
    for split in data.splits.values():
        for image, file in zip(split.images[:], split.columns["file"]):
            with Image.open(tmp_path / "pets" / file) as opened:
                assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(opened))
    unread, odd = data.findings
    assert (unread.audit, unread.severity, len(unread.items)) == ("unreadable files", "serious", 3)
    assert odd.items == ("owl/really a png.jpg: PNG",)
    assert data.notes == (
        "1 image files that are not in a class folder were left out",
        "1 files are not image files by their names and were left out (.txt 1), for example owl/notes.txt",
    )


def test_sizes_that_differ_need_a_size(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    picture(0, 99, (7, 9)).save(root / "dog" / "wide.png")
    with pytest.raises(
        DataError, match=r"differ in size \(the first is 5×6 pixels, dog/wide.png 9×7\); set `size`"
    ):
        folder(path=str(root))
    for size, shape in ((4, (3, 4, 4)), ((4, 8), (3, 4, 8))):
        assert folder(path=str(root), size=size, fit="pad").shape == shape  # type: ignore[arg-type]


def only(names: tuple[str, ...]) -> Callable[[Path], str]:
    return lambda root: str(fill(root / "pets", names, n=10))


def csv(*rows: str) -> Callable[[Path], str]:
    return lambda root: table(fill(root / "pets"), [row.split(",") for row in rows])


WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "nothing there": (lambda root: str(root / "none"), "there is no .*none"),
    "one class": (only(("cat",)), "1 class; a classifier needs at least two"),
    "empty folder": (lambda root: str(root), "holds 0 image files"),
    "no class folder": (
        lambda root: str(fill(root / "pets") / "cat"),
        "10 image files, none of them in a class folder",
    ),
    "parts and classes mixed": (
        only(("train", "cat")),
        r"folders for parts \(train\) and others beside them \(cat\)",
    ),
    "no train part": (only(("test", "val")), "none of them is `train`"),
    "a text file": (lambda root: table(root, [["a"]], "notes.txt"), "neither a folder"),
    "no label column": (csv("path,lable", "cat/000.png,cat"), "no column 'label': did you mean 'lable'"),
    "no path column": (csv("file_name,label", "cat/000.png,cat"), "no column 'path'"),
    "a missing file": (csv("path,label", "cat/000.png,cat", "cat/777.png,cat"), "cat/777.png: No such file"),
    "two labels": (
        csv("path,label", "cat/000.png,cat", "./cat/000.png,dog"),
        r"table.csv:3: ./cat/000.png is listed as 'dog' here and as 'cat' in line 2",
    ),
    "twice": (csv("path,label", "cat/000.png,cat", "cat/000.png,cat"), "listed again in line 2"),
    "no label": (csv("path,label", "cat/000.png,"), "table.csv:2: no label"),
    "too many values": (csv("path,label", "cat/000.png,cat,4"), "table.csv:2: more values than columns"),
    "too few values": (csv("path,label,group", "cat/000.png,cat"), "table.csv:2: fewer values than columns"),
    "an unknown part": (
        csv("path,label,split", "cat/000.png,cat,holdout"),
        "split 'holdout': expected train",
    ),
    "no rows": (csv("path,label"), "lists no image"),
    "a taken name": (
        csv("path,label,width", "cat/000.png,cat,5"),
        "the column 'width' has the name of a measured column",
    ),
    "a class only in test": (
        csv(
            "path,label,split",
            *(f"{n}/00{k}.png,{n},train" for n in ("cat", "dog") for k in range(5)),
            "owl/000.png,owl,test",
        ),
        "test part has images of 'owl', and the train part has none",
    ),
}


@pytest.mark.breadth(10)
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    make, message = WRONG[name]
    (tmp_path / "here").mkdir()
    with pytest.raises(DataError, match=message):
        folder(path=make(tmp_path / "here"))


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    whole = tarred(root, tmp_path / "pets.tar.gz").read_bytes()
    (tmp_path / "pets.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        folder(path=str(tmp_path / "pets.tar.gz"))
    archive = bytearray(zipped(root, tmp_path / "pets.zip").read_bytes())
    place = archive.find(b"IDAT") + 20
    archive[place : place + 20] = bytes(20)
    (tmp_path / "pets.zip").write_bytes(archive)
    with pytest.raises(DataError, match=r"owl/009.png: cannot be unpacked \(Bad CRC-32"):
        folder(path=str(tmp_path / "pets.zip"))


def test_an_unknown_column_to_slice_by(tmp_path: Path) -> None:
    rows = [
        ["path", "label", "camera"],
        *([f"{n}/00{k}.png", n, "A"] for n in ("cat", "dog") for k in range(5)),
    ]
    file = table(fill(tmp_path / "pets"), rows)
    with pytest.raises(ConfigError, match="no column 'kamera'; did you mean 'camera'"):
        folder(path=file, slices=["kamera"])
    assert "camera" in folder(path=file, slices=["camera"]).train.columns
    assert "camera" not in folder(path=file, slices=[]).train.columns


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "cat" / "loop.png").symlink_to("loop.png")
    (root / "dog" / "dangling.png").symlink_to("gone.png")
    with pytest.raises(
        DataError, match=r"(?s)cat/loop.png: Too many levels .*dog/dangling.png: No such file"
    ):
        folder(path=str(root))
    assert len(folder(path=str(root), unreadable="skip").train) == 18


def test_a_class_of_which_nothing_can_be_read_stays_a_class(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets", ("cat", "dog"))
    (root / "owl").mkdir()
    (root / "owl" / "1.png").write_bytes(b"")
    data = folder(path=str(root), unreadable="skip")
    assert data.classes == ("cat", "dog", "owl")


def test_a_damaged_zip_is_told(tmp_path: Path) -> None:
    archive = zipped(fill(tmp_path / "pets"), tmp_path / "pets.zip")
    content = bytearray(archive.read_bytes())
    place = content.rfind(b"PK\x01\x02")
    content[place : place + 4] = b"????"
    archive.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        folder(path=str(archive))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["path,label,label", "cat/000.png,cat,cat"], "column 'label' more than once"),
        (["path,label,group", "cat/000.png,cat,", "dog/000.png,dog,a"], "n.csv:2: no group"),
    ],
)
def test_tables_with_gaps(tmp_path: Path, rows: list[str], message: str) -> None:
    root = fill(tmp_path / "pets")
    with pytest.raises(DataError, match=message):
        folder(path=table(root, [row.split(",") for row in rows], "n.csv"))
