"""An archive or a table that has lost images is refused in words; none is left out in silence."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pets import fill, table

from stresslens.core.cache_folder import cache_root
from stresslens.core.errors import DataError
from stresslens.plugins.datasets.folder import folder

TWO_ZERO_BLOCKS = bytes(1024)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    root = fill(tmp_path / "pets")
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        for file in sorted(root.rglob("*.png")):
            archive.add(file, file.relative_to(root).as_posix())
    return tmp_path / "pets.tar"


def header_of(content: bytes, name: str) -> int:
    return content.find(name.encode())


def flipped_header(content: bytes) -> bytes:
    at = header_of(content, "dog/005.png") + 5
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def zeroed_header(content: bytes) -> bytes:
    at = header_of(content, "dog/005.png")
    return content[:at] + bytes(512) + content[at + 512 :]


def zeroed_rest(content: bytes) -> bytes:
    at = header_of(content, "dog/005.png") + 300
    return content[:at] + bytes(len(content) - at)


def cut_in_a_header(content: bytes) -> bytes:
    return content[: header_of(content, "dog/005.png") + 100]


def cut_between_members(content: bytes) -> bytes:
    return content[: header_of(content, "dog/005.png")]


def cut_in_a_member(content: bytes) -> bytes:
    return content[: header_of(content, "dog/005.png") + 512 + 20]


def joined(content: bytes) -> bytes:
    return content + content


DAMAGE: list[Callable[[bytes], bytes]] = [
    flipped_header,
    zeroed_header,
    zeroed_rest,
    cut_in_a_header,
    cut_between_members,
    cut_in_a_member,
    joined,
]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}


@pytest.mark.breadth(8)
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("suffix", PACKERS)
def test_a_damaged_tar_is_refused(plain: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    file = plain.with_name(f"damaged{suffix}")
    file.write_bytes(PACKERS[suffix](damage(plain.read_bytes())))
    last = "owl/009" if damage is joined else "dog/004"
    with pytest.raises(DataError, match=rf"damaged.*({last}\.png|damaged \()"):
        folder(path=str(file))


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_whole_tar_is_read(plain: Path, suffix: str) -> None:
    file = plain.with_name(f"whole{suffix}")
    file.write_bytes(PACKERS[suffix](plain.read_bytes()))
    assert sum(len(split) for split in folder(path=str(file)).splits.values()) == 30


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_compressed_tar_that_is_cut_is_refused(plain: Path, suffix: str, share: float) -> None:
    file = plain.with_name(f"cut{suffix}")
    content = PACKERS[suffix](plain.read_bytes())
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="cut"):
        folder(path=str(file))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "cannot be read: the disk has an input/output error"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be read: permission denied"),
        (OSError(errno.EINVAL, "Invalid argument"), r"is damaged \(.*Invalid argument\); download it again"),
        (OSError("Invalid data stream"), r"is damaged \(Invalid data stream\); download it again"),
    ],
    ids=["disk", "permission", "position", "stream"],
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_the_system_does_not_read_is_not_called_damaged(
    kind: str, error: OSError, said: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Path = request.getfixturevalue("plain" if kind == "tar" else "zipped")

    def failing(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(
        tarfile if kind == "tar" else zipfile, "open" if kind == "tar" else "ZipFile", failing
    )
    monkeypatch.setattr(tarfile, "is_tarfile", lambda path: True)
    with pytest.raises(DataError, match=said):
        folder(path=str(path))


def test_a_damaged_list_of_members_is_made_again(plain: Path) -> None:
    folder(path=str(plain))
    for index in (cache_root() / "pictures" / "index").glob("*.members.json"):
        index.write_bytes(index.read_bytes()[:-9])
    assert sum(len(split) for split in folder(path=str(plain)).splits.values()) == 30
    for index in (cache_root() / "pictures" / "index").glob("*.members.json"):
        index.write_text('{"cat/000.png": 1}')
    assert sum(len(split) for split in folder(path=str(plain)).splits.values()) == 30


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    root = fill(tmp_path / "pets")
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, file.relative_to(root).as_posix())
    return tmp_path / "pets.zip"


def test_a_zip_with_a_wrong_checksum_names_the_image(zipped: Path) -> None:
    content = bytearray(zipped.read_bytes())
    with zipfile.ZipFile(zipped) as archive:
        info = archive.getinfo("dog/005.png")
    content[info.header_offset + 80] ^= 1
    zipped.write_bytes(content)
    with pytest.raises(DataError, match=r"1 of 30 files.*\n.*dog/005\.png"):
        folder(path=str(zipped))


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_zip_that_is_cut_is_refused(zipped: Path, share: float) -> None:
    content = zipped.read_bytes()
    zipped.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="cut short or damaged"):
        folder(path=str(zipped))


def test_a_parquet_that_is_cut_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    root = fill(tmp_path / "pets")
    names = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*.png"))]
    labels = [name.split("/")[0] for name in names]
    file = root / "table.parquet"
    parquet.write_table(pyarrow.table({"path": names, "label": labels}), file)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        folder(path=str(file))


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_a_csv_that_is_cut_inside_its_last_row_is_refused(tmp_path: Path, lost: int) -> None:
    root = fill(tmp_path / "pets")
    names = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*.png"))]
    rows = [["path", "label"], *([name, name.split("/")[0]] for name in names)]
    file = Path(table(root, rows))
    assert len(folder(path=str(file)).classes) == 3  # a last line without an end is no mistake
    file.write_text(file.read_text()[:-lost])
    with pytest.raises(DataError, match=r"table\.csv:31: (the last line has no end|fewer values)|no label"):
        folder(path=str(file))
