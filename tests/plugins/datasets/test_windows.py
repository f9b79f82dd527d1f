"""Archives and tables that were made on Windows: backslashes, encodings, separators, line ends."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from pets import fill, picture, pixels

from stresslens.core.errors import ConfigError, DataError
from stresslens.plugins.datasets.folder import folder


def content(label: int, k: int) -> bytes:
    file = io.BytesIO()
    picture(label, k).save(file, "PNG")
    return file.getvalue()


def zip_of(path: Path, names: tuple[bytes, ...], prefix: bytes = b"") -> str:
    """A zip whose names are the given bytes, with backslashes, without a word on their encoding."""
    raw = {}
    with zipfile.ZipFile(path, "w") as archive:
        for label, name in enumerate(names):
            for k in range(10):
                wanted = prefix + name + b"\\%03d.png" % k
                stand_in = f"@{label}{k}".ljust(len(wanted), "@")
                archive.writestr(stand_in, content(label, k))
                raw[stand_in.encode()] = wanted
    written = path.read_bytes()
    for stand_in, wanted in raw.items():
        written = written.replace(stand_in, wanted)
    path.write_bytes(written)
    return str(path)


@pytest.mark.parametrize("prefix", [b"", b"pets\\", b"C:\\data\\pets\\"])
def test_a_zip_with_backslashes_is_its_folder(tmp_path: Path, prefix: bytes) -> None:
    data = folder(path=zip_of(tmp_path / "pets.zip", (b"cat", b"dog", b"owl"), prefix))
    plain = folder(path=str(fill(tmp_path / "pets")))
    assert data.classes == plain.classes
    for name, images in pixels(plain).items():
        assert (pixels(data)[name] == images).all()


def test_folders_of_a_zip_with_backslashes_are_no_files(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "pets.zip", (b"cat", b"dog"))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("cat\\", "dog\\", "owl\\"):
            archive.writestr(name, b"")
    data = folder(path=path)
    assert (data.classes, data.notes) == (("cat", "dog"), ())
    (finding,) = (each for each in data.findings if each.status == "sign")
    assert finding.audit == "empty class folders"
    assert finding.evidence.endswith(": owl")


def test_a_zip_with_parts_and_backslashes(tmp_path: Path) -> None:
    names = (rb"train\cat", rb"train\dog", rb"test\cat", rb"test\dog")
    data = folder(path=zip_of(tmp_path / "pets.zip", names), validation=0)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "test": 20}


def test_a_tar_with_backslashes(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        for label, name in enumerate(("cat", "dog")):
            for k in range(10):
                member, data = tarfile.TarInfo(f"pets\\{name}\\{k}.png"), content(label, k)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    assert folder(path=str(tmp_path / "pets.tar")).classes == ("cat", "dog")


def test_names_in_a_zip_that_do_not_say_their_encoding(tmp_path: Path) -> None:
    utf8 = zip_of(tmp_path / "mac.zip", ("Käfer".encode(), b"Ameise"))
    assert folder(path=utf8).classes == ("Ameise", "Käfer")
    assert folder(path=utf8).notes == ()
    western = zip_of(tmp_path / "western.zip", ("Käfer".encode("cp437"), b"Ameise"))
    data = folder(path=western)
    assert data.classes == ("Ameise", "Käfer")
    assert "10 names in the archive do not say their encoding and were read as cp437" in data.notes[0]
    japanese = zip_of(tmp_path / "japanese.zip", ("猫".encode("cp932"), "犬".encode("cp932")))
    assert folder(path=japanese, encoding="cp932").classes == ("犬", "猫")
    assert folder(path=japanese, encoding="cp932").notes == ()
    with pytest.raises(ConfigError, match="there is no 'cp9999'"):
        folder(path=japanese, encoding="cp9999")
    with pytest.raises(DataError, match="is no ascii"):
        folder(path=japanese, encoding="ascii")


HEAD, ROWS = "path;label", [f"{name}\\{k:03d}.png;{name}" for name in ("cat", "dog") for k in range(10)]


@pytest.mark.parametrize(
    ("before", "end", "encoding"),
    [
        ("", "\r\n", "utf-8"),
        ("", "\r\n", "utf-8-sig"),
        ("", "\r\n", "utf-16"),
        ("sep=;\r\n", "\r\n", "utf-8-sig"),
        ("", "\n", "utf-8"),
    ],
)
def test_a_table_of_excel(tmp_path: Path, before: str, end: str, encoding: str) -> None:
    root = fill(tmp_path / "pets")
    (root / "pets.csv").write_bytes((before + end.join([HEAD, *ROWS]) + end).encode(encoding))
    data = folder(path=str(root / "pets.csv"))
    assert data.classes == ("cat", "dog")
    assert all("\\" not in file for file in data.train.columns["file"])


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    rows = [row.removesuffix("cat") + "Kätzchen" if row.endswith("cat") else row for row in ROWS]
    (root / "pets.csv").write_bytes("\r\n".join([HEAD, *rows, ""]).encode("cp1252"))
    with pytest.raises(DataError, match=r"in UTF-8: .*may need `encoding: cp1252`"):
        folder(path=str(root / "pets.csv"))
    assert folder(path=str(root / "pets.csv"), encoding="cp1252").classes == ("Kätzchen", "dog")
    with pytest.raises(ConfigError, match="there is no 'windows'"):
        folder(path=str(root / "pets.csv"), encoding="windows")


def test_absolute_paths_in_a_table(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    here = [f"{root}/{row}".replace("\\", "/").replace(f";{root}/", ";") for row in ROWS]
    (tmp_path / "here.csv").write_text("\n".join([HEAD, *here, ""]))
    assert folder(path=str(tmp_path / "here.csv")).classes == ("cat", "dog")
    (tmp_path / "there.csv").write_text("\n".join([HEAD, *(f"C:\\pets\\{row}" for row in ROWS), ""]))
    with pytest.raises(DataError, match=r"there.csv:2: C:/pets/cat/000.png is a path of a Windows computer"):
        folder(path=str(tmp_path / "there.csv"))


def test_two_ways_to_write_one_path_are_one_file(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "pets.csv").write_text("\n".join([HEAD, *ROWS, "cat/000.png;cat", ""]))
    with pytest.raises(DataError, match=r"pets.csv:22: cat/000.png is listed again in line 2"):
        folder(path=str(root / "pets.csv"))
