"""Any bytes as an archive, a table or a picture give a result, or one message with the file."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import FEW, MANY, PIECES, answer, changed, written
from pets import picture


def encoded(kind: str, label: int = 0, k: int = 0) -> bytes:
    out = io.BytesIO()
    picture(label, k).save(out, kind)
    return out.getvalue()


PICTURES = {
    "png": encoded("PNG"),
    "jpg": encoded("JPEG"),
    "gif": encoded("GIF"),
    "bmp": encoded("BMP"),
    "tif": encoded("TIFF"),
    "webp": encoded("WEBP"),
    "ppm": encoded("PPM"),
    "tga": encoded("TGA"),
    "ico": encoded("ICO"),
    "jp2": encoded("JPEG2000"),
}


def archives() -> dict[str, bytes]:
    names = {f"pets/{part}/{k}.png": encoded("PNG", part == "b", k) for part in "ab" for k in range(4)}
    made = {}
    for kind, pack in (("zip", zipfile.ZIP_STORED), ("deflated.zip", zipfile.ZIP_DEFLATED)):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", pack) as archive:
            for name, content in names.items():
                archive.writestr(name, content)
        made[kind] = out.getvalue()
    for kind, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
            for name, content in names.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        made[kind] = out.getvalue()
    rows = "\n".join(f"{part}/{k}.png;{part};g{k}" for part in "ab" for k in range(4))
    made["csv"] = f"path;label;group\n{rows}\n".encode()
    return made


ARCHIVES = archives()


@st.composite
def changed_archives(draw: Any) -> tuple[str, bytes]:
    kind, content = draw(st.sampled_from(sorted(ARCHIVES.items())))
    suffix = draw(
        st.sampled_from([kind, kind, kind, "zip", "tar", "tgz", "gz", "csv", "tsv", "parquet", "txt"])
    )
    return suffix, changed(draw, content)


@st.composite
def changed_pictures(draw: Any) -> tuple[str, bytes]:
    kind = draw(st.sampled_from(sorted(PICTURES)))
    suffix = draw(st.sampled_from([kind, kind, *sorted(PICTURES)]))
    return suffix, draw(
        st.sampled_from([*PIECES, changed(draw, PICTURES[kind]), changed(draw, PICTURES[kind])])
    )


def of_archive(folder: Path, archive: tuple[str, bytes]) -> None:
    suffix, content = archive
    file = written(folder, f"pets.{suffix}", content)
    answer("data", "check", str(file), names=[file.name])


def of_picture(folder: Path, changed_picture: tuple[str, bytes]) -> None:
    suffix, content = changed_picture
    for part in "ab":
        (folder / part).mkdir(exist_ok=True)
        for k in range(3):
            written(folder / part, f"{k}.png", encoded("PNG", part == "b", k))
    file = written(folder / "a", f"odd.{suffix}", content)
    answer("data", "check", str(folder), names=[file.name, folder.name])
    file.unlink()


@FEW
@given(archive=changed_archives())
def test_any_changed_archive(tmp_path: Path, archive: tuple[str, bytes]) -> None:
    of_archive(tmp_path, archive)


@FEW
@given(changed_picture=changed_pictures())
def test_any_changed_picture(tmp_path: Path, changed_picture: tuple[str, bytes]) -> None:
    of_picture(tmp_path / "temporary", changed_picture)


@pytest.mark.slow
@MANY
@given(archive=changed_archives())
def test_many_changed_archives(tmp_path: Path, archive: tuple[str, bytes]) -> None:
    of_archive(tmp_path, archive)


@pytest.mark.slow
@MANY
@given(changed_picture=changed_pictures())
def test_many_changed_pictures(tmp_path: Path, changed_picture: tuple[str, bytes]) -> None:
    of_picture(tmp_path / "temporary", changed_picture)


@pytest.mark.parametrize(
    "name",
    ["../../evil/a/1.png", "/a/1.png", "a\x1b[31m/1.png", "a/\u202egnp.png", "a\\b\\1.png", "con/1.png"],
)
def test_hostile_names_in_an_archive(tmp_path: Path, name: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for k in range(6):
            archive.writestr(f"{'xy'[k % 2]}/{k}.png", encoded("PNG", k % 2, k))
        archive.writestr(name, encoded("PNG", 0, 9))
    of_archive(tmp_path, ("zip", out.getvalue()))
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", ["zip", "deflated.zip"])
@pytest.mark.parametrize("cut", [100, 700])
def test_the_halves_of_an_archive_in_the_other_order(tmp_path: Path, kind: str, cut: int) -> None:
    """The offsets of its first files lie before its start."""
    content = ARCHIVES[kind]
    of_archive(tmp_path, (kind, content[cut:] + content[:cut]))


@pytest.mark.breadth(3)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("content", [b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"PK\x05\x06"])
def test_an_archive_that_ends_in_its_first_bytes(tmp_path: Path, suffix: str, content: bytes) -> None:
    of_archive(tmp_path, (suffix, content))


@pytest.mark.slow
def test_an_archive_that_unpacks_to_much(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(600 * 2**20))
        archive.writestr("b/1.png", encoded("PNG"))
    file = written(tmp_path, "bomb.zip", out.getvalue())
    code, said = answer("data", "check", str(file), names=["a/1.png"])
    assert code == 3
    assert "larger than" in said
