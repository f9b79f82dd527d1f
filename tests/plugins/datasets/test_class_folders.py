"""Class folders as people have them: called train, empty, nested, hidden, or left by a system."""

from __future__ import annotations

import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pets import fill, tarred, zipped
from PIL import Image

from stresslens.core.errors import DataError
from stresslens.core.image_files import Frame, Unreadable, decode
from stresslens.core.image_formats import AVIF, FORMATS
from stresslens.plugins.datasets.folder import folder


def as_folder(root: Path) -> str:
    return str(root)


def as_zip(root: Path) -> str:
    return str(zipped(root, root.with_suffix(".zip")))


def as_tar(root: Path) -> str:
    return str(tarred(root, root.with_suffix(".tar.gz")))


packed = pytest.mark.parametrize("pack", [as_folder, as_zip, as_tar])


@pytest.mark.breadth(5)
@packed
@pytest.mark.parametrize(
    "classes", [("bus", "car", "train"), ("dev", "test"), ("Test", "val"), ("train", "test"), ("bus", "car")]
)
def test_classes_that_are_named_may_be_called_train(
    tmp_path: Path, pack: Callable[[Path], str], classes: tuple[str, ...]
) -> None:
    beside = (*classes, "train") if "bus" in classes and "train" not in classes else classes
    path = pack(fill(tmp_path / "photos", beside))
    data = folder(path=path, classes=list(classes))
    assert data.classes == classes
    assert sum(map(len, data.splits.values())) == 10 * len(classes)
    with pytest.raises(DataError, match=r"name the(m| classes): `classes: \["):
        folder(path=path)


def test_class_folders_called_train_inside_the_parts(tmp_path: Path) -> None:
    for part in ("train", "test"):
        fill(tmp_path / "photos" / part, ("bus", "train", "test"))
    for classes in (None, ["bus", "train"], ["train", "test"]):
        data = folder(path=str(tmp_path / "photos"), classes=classes)
        assert data.classes == tuple(classes or ("bus", "test", "train"))
        assert data.test is not None
        assert set(data.test.columns["file"]) & set(data.train.columns["file"]) == set()
        assert all(str(file).startswith("test/") for file in data.test.columns["file"])


@pytest.mark.parametrize("parts", [False, True])
def test_an_empty_class_folder_is_told(tmp_path: Path, parts: bool) -> None:
    root = tmp_path / "photos"
    for part in ("train", "test") if parts else ("",):
        fill(root / part)
    empty = root / "train" / "bird" if parts else root / "bird"
    empty.mkdir()
    (empty / "notes.txt").write_text("no birds yet")
    (finding,) = folder(path=str(root)).findings
    assert (finding.audit, finding.severity, finding.items) == (
        "empty class folders",
        "serious",
        (str(empty.relative_to(root)),),
    )
    (empty / "notes.txt").unlink()
    archive = zipped(root, tmp_path / "photos.zip", "all/")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(f"all/{empty.relative_to(root)}/", "")
    assert folder(path=str(archive)).findings == (finding,)


SYSTEM = (
    *(".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    *("__MACOSX", ".Trash", "#recycle"),
)


@packed
def test_folders_and_files_of_systems_are_no_classes_and_told(
    tmp_path: Path, pack: Callable[[Path], str]
) -> None:
    root = fill(tmp_path / "photos")
    fill(tmp_path / "more", SYSTEM)
    for name in SYSTEM:
        (tmp_path / "more" / name).rename(root / name)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
        (root / "cat" / name).write_bytes(b"x")
    data = folder(path=pack(root))
    assert data.classes == ("cat", "dog", "owl")
    (note,) = data.notes
    assert note.startswith("hidden folders and folders of the system were left out: ")
    assert all(name in note for name in SYSTEM)
    assert data.findings == ()


@packed
def test_folders_inside_a_class_folder_are_told(tmp_path: Path, pack: Callable[[Path], str]) -> None:
    root = tmp_path / "photos"
    fill(root / "animals", ("cat", "dog"))
    fill(root / "vehicles", ("bus",))
    data = folder(path=pack(root))
    assert data.classes == ("animals", "vehicles")
    (note,) = data.notes
    assert note == (
        "1 class folders hold folders of images, which all count as that class (animals: cat, dog)"
    )


def test_one_folder_around_everything_is_skipped_and_told(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "a" / "b")
    data = folder(path=str(tmp_path / "photos"))
    assert data.classes == ("cat", "dog", "owl")
    assert data.notes == tuple(f"everything is in one folder, {name!r}, which was skipped" for name in "ab")
    assert data.train.columns["file"][0].startswith("a/b/")


def test_names_of_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    for part, form in (("train", "NFC"), ("test", "NFD")):
        fill(tmp_path / "photos" / part, (unicodedata.normalize(form, "Käfer"), "Ameise"))
    data = folder(path=str(tmp_path / "photos"))
    assert data.classes == ("Ameise", unicodedata.normalize("NFC", "Käfer"))
    assert "differ only by their Unicode form are one class: Käfer" in data.notes[0]
    alone = fill(tmp_path / "alone", (unicodedata.normalize("NFD", "Käfer"), "Ameise"))
    assert folder(path=str(alone)).classes[1] == unicodedata.normalize("NFD", "Käfer")  # as it was


@pytest.mark.parametrize(
    ("suffix", "helps"),
    [
        pytest.param(
            "heic",
            "pip install pillow-heif",
            marks=pytest.mark.skipif("HEIF" in FORMATS, reason="pillow-heif is installed"),
        ),
        ("CR2", "convert camera raw files"),
        ("pdf", "convert documents"),
        ("mp4", "take single images"),
    ],
)
def test_pictures_of_other_formats_are_a_finding(tmp_path: Path, suffix: str, helps: str) -> None:
    root = fill(tmp_path / "photos")
    for k in range(3):
        (root / "cat" / f"p{k}.{suffix}").write_bytes(b"x")
    (root / "cat" / "notes.txt").write_text("x")
    data = folder(path=str(root))
    (finding,) = data.findings
    assert (finding.audit, finding.severity, finding.n) == ("files left out", "serious", 33)
    assert finding.evidence == (
        f"4 files are not image files by their names and were left out (.{suffix.lower()} 3, .txt 1), "
        f"for example cat/p0.{suffix} and cat/notes.txt"
    )
    assert finding.items == tuple(f"cat/p{k}.{suffix}" for k in range(3))
    assert helps in finding.remedy
    assert data.notes == ()


@pytest.mark.skipif("HEIF" not in FORMATS, reason="pillow-heif is not installed")
def test_heic_is_read_with_its_plug_in(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos")
    with Image.open(root / "cat" / "000.png") as opened:
        opened.resize((64, 64)).save(root / "cat" / "new.heic")
    data = folder(path=str(root), size=6)
    assert sum(map(len, data.splits.values())) == 31
    assert data.findings == ()


@pytest.mark.skipif(not AVIF, reason="Pillow was built without AVIF, and has no plug-in for it")
def test_avif_is_read(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos")
    with Image.open(root / "cat" / "000.png") as opened:
        opened.resize((64, 64)).save(root / "cat" / "new.avif")
    assert sum(map(len, folder(path=str(root), size=6).splits.values())) == 31


def test_a_heic_file_under_another_name_says_what_reads_it() -> None:
    with pytest.raises(Unreadable, match="it is HEIC: pip install pillow-heif reads it"):
        decode(b"\0\0\0\x1cftypheic" + bytes(40), Frame(3, None))
