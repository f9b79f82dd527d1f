"""A user's own images: every shape they come in, every way they can be wrong, and a cache that may be trusted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stresslens.core import image_store
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.image_store import Stored
from stresslens.datasets.folder import folder

REAL = os.environ.get("STRESSLENS_DATA")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(label: int, k: int, size: tuple[int, int] = (6, 5)) -> Image.Image:
    """Noise whose first pixel is (label, k, 9)."""
    pixels = np.random.default_rng([label, k]).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[0, 0] = label, k, 9
    return Image.fromarray(pixels)


def fill(root: Path, names: tuple[str, ...] = ("cat", "dog", "owl"), n: int = 10, size: tuple[int, int] = (6, 5)) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for k in range(n):
            picture(label, k, size).save(root / name / f"{k:03d}.png")
    return root


def pixels(data: Data) -> dict[str, np.ndarray]:
    return {name: split.images[:].numpy() for name, split in data.splits.items()}


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    data = folder(path=str(fill(tmp_path / "pets")))
    assert (data.name, data.classes, data.shape) == ("pets", ("cat", "dog", "owl"), (3, 6, 5))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 18, "validation": 6, "test": 6}
    for split in data.splits.values():
        assert torch.equal(split.images[:][:, 0, 0, 0].long(), split.labels)
        names = [data.classes[label] for label in split.labels]
        assert [file.split("/")[0] for file in split.columns["file"]] == names
        assert (split.images[:][:, 1, 0, 0].numpy() == [int(file[-7:-4]) for file in split.columns["file"]]).all()
        assert (split.columns["width"] == 5).all()
        assert (split.columns["height"] == 6).all()


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "testing")])
def test_parts_given_as_folders(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for part, n in zip(names, (5, 3, 2)):
        fill(tmp_path / "pets" / part, n=n)
    data = folder(path=str(tmp_path / "pets"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 15, "validation": 9, "test": 6}
    assert data.train.columns["file"][0].startswith(names[0])
    with pytest.raises(ConfigError, match="has a test part of its own"):
        folder(path=str(tmp_path / "pets"), test=0.1)


def test_without_a_validation_folder_it_is_drawn_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "pets" / "train", n=10)
    fill(tmp_path / "pets" / "test", n=2)
    data = folder(path=str(tmp_path / "pets"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "validation": 6, "test": 6}
    assert all(file.startswith("train/") for file in data.splits["validation"].columns["file"])


def zipped(root: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.write(file, prefix + file.relative_to(root).as_posix())
    return target


def tarred(root: Path, target: Path, prefix: str = "") -> Path:
    with tarfile.open(target, "w:gz") as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.add(file, prefix + file.relative_to(root).as_posix())
    return target


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("prefix", ["", "pets/", "./a/pets/"])
def test_an_archive_is_its_folder(tmp_path: Path, pack: Callable[..., Path], prefix: str) -> None:
    root = fill(tmp_path / "pets")
    archived = folder(path=str(pack(root, tmp_path / "pets.archive", prefix)))
    plain = folder(path=str(root))
    assert archived.fingerprint == plain.fingerprint
    assert all(np.array_equal(a, b) for a, b in zip(pixels(archived).values(), pixels(plain).values()))


def table(root: Path, rows: list[list[str]], name: str = "table.csv") -> str:
    (root / name).write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    return str(root / name)


def test_a_table_with_groups_parts_and_columns(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    rows = [["path", "label", "split", "group", "camera"]]
    for name in ("cat", "dog"):
        rows += [[f"{name}/{k:03d}.png", name, "test" if k < 3 else "train", f"house {k % 4}", "AB"[k % 2]] for k in range(10)]
    data = folder(path=table(root, rows), validation=4)
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    assert len(data.test) == 6
    assert set(data.train.columns) == {"file", "group", "camera", "width", "height", "bytes"}
    assert set(data.train.columns["camera"]) == {"A", "B"}
    assert data.validation is not None
    assert not set(data.validation.columns["group"]) & set(data.train.columns["group"])


def test_a_parquet_table_is_the_csv(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    root = fill(tmp_path / "pets")
    rows = [[f"{name}/{k:03d}.png", name, "AB"[k % 2]] for name in ("cat", "dog") for k in range(10)]
    columns = {column: [row[place] for row in rows] for place, column in enumerate(("path", "label", "camera"))}
    parquet.write_table(pyarrow.table(columns), root / "table.parquet")
    one, other = folder(path=str(root / "table.parquet")), folder(path=table(root, [["path", "label", "camera"], *rows]))
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


# --- what is wrong ----------------------------------------------------------------------------------------------------


def nasty(root: Path) -> Path:
    fill(root)
    whole = (root / "cat" / "000.png").read_bytes()
    (root / "cat" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog" / "empty.jpg").write_bytes(b"")
    (root / "owl" / "text.png").write_text("no picture")
    (root / "owl" / "really a png.jpg").write_bytes(whole)
    (root / "owl" / "notes.txt").write_text("mind the owl")
    (root / "stray.png").write_bytes(whole)
    return root


def test_unreadable_files_are_all_named_with_their_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        folder(path=str(nasty(tmp_path / "pets")))
    lines = str(caught.value).splitlines()
    assert lines[0] == "pets: 3 of 34 files cannot be read as pictures"
    assert [line.split(":")[0] for line in lines[1:4]] == ["cat/truncated.png", "dog/empty.jpg", "owl/text.png"]
    assert "unreadable: skip" in lines[4]


def test_unreadable_files_are_left_out_counted_and_listed_and_nothing_takes_their_place(tmp_path: Path) -> None:
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
        "1 pictures that lie in no class's folder were left out",
        "1 files are no pictures by their names and were left out (.txt 1)",
    )


def test_sizes_that_differ_need_a_size(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    picture(0, 99, (7, 9)).save(root / "dog" / "wide.png")
    with pytest.raises(DataError, match=r"differ in size \(the first is 5×6 pixels, dog/wide.png 9×7\); set `size`"):
        folder(path=str(root))
    for size, shape in ((4, (3, 4, 4)), ((4, 8), (3, 4, 8))):
        assert folder(path=str(root), size=size, fit="pad").shape == shape  # type: ignore[arg-type]


def test_grey_pictures_are_grey_until_one_has_colours(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "g" / name).mkdir(parents=True)
        for k in range(5):
            picture(0, k).convert("L").save(tmp_path / "g" / name / f"{k}.png")
    assert folder(path=str(tmp_path / "g")).shape == (1, 6, 5)
    assert folder(path=str(tmp_path / "g"), colours="rgb").shape == (3, 6, 5)
    picture(0, 7).save(tmp_path / "g" / "b" / "coloured.png")
    assert folder(path=str(tmp_path / "g")).shape == (3, 6, 5)
    assert folder(path=str(tmp_path / "g"), colours="grey").shape == (1, 6, 5)


def only(names: tuple[str, ...]) -> Callable[[Path], str]:
    return lambda root: str(fill(root / "pets", names, n=10))


def csv(*rows: str) -> Callable[[Path], str]:
    return lambda root: table(fill(root / "pets"), [row.split(",") for row in rows])


WRONG: dict[str, tuple[Callable[[Path], str], str]] = {
    "nothing there": (lambda root: str(root / "none"), "there is no .*none"),
    "one class": (only(("cat",)), "1 class; a classifier needs at least two"),
    "empty folder": (lambda root: str(root), "holds 0 pictures"),
    "no class folder": (lambda root: str(fill(root / "pets") / "cat"), "10 pictures, none of them in a class's folder"),
    "parts and classes mixed": (only(("train", "cat")), r"folders for parts \(train\) and others beside them \(cat\)"),
    "no train part": (only(("test", "val")), "none of them is `train`"),
    "a text file": (lambda root: table(root, [["a"]], "notes.txt"), "neither a folder"),
    "no label column": (csv("path,lable", "cat/000.png,cat"), "no column 'label': did you mean 'lable'"),
    "no path column": (csv("file_name,label", "cat/000.png,cat"), "no column 'path'"),
    "a missing file": (csv("path,label", "cat/000.png,cat", "cat/777.png,cat"), "cat/777.png: No such file"),
    "two labels": (
        csv("path,label", "cat/000.png,cat", "./cat/000.png,dog"),
        r"table.csv:3: ./cat/000.png is listed as 'dog' here and as 'cat' in line 2",
    ),
    "twice": (csv("path,label", "cat/000.png,cat", "cat/000.png,cat"), "listed once more in line 2"),
    "no label": (csv("path,label", "cat/000.png,"), "table.csv:2: no label"),
    "too many values": (csv("path,label", "cat/000.png,cat,4"), "table.csv:2: more values than columns"),
    "too few values": (csv("path,label,group", "cat/000.png,cat"), "table.csv:2: fewer values than columns"),
    "an unknown part": (csv("path,label,split", "cat/000.png,cat,holdout"), "split 'holdout': expected train"),
    "no rows": (csv("path,label"), "lists no picture"),
    "a taken name": (csv("path,label,width", "cat/000.png,cat,5"), "the column 'width' has the name of something"),
    "a class only in test": (
        csv("path,label,split", *(f"{n}/00{k}.png,{n},train" for n in ("cat", "dog") for k in range(5)), "owl/000.png,owl,test"),
        "test part has images of 'owl', and the train part has none",
    ),
}


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
    rows = [["path", "label", "camera"], *([f"{n}/00{k}.png", n, "A"] for n in ("cat", "dog") for k in range(5))]
    file = table(fill(tmp_path / "pets"), rows)
    with pytest.raises(ConfigError, match="no column 'kamera'; did you mean 'camera'"):
        folder(path=file, slices=["kamera"])
    assert "camera" in folder(path=file, slices=["camera"]).train.columns
    assert "camera" not in folder(path=file, slices=[]).train.columns


@pytest.mark.parametrize("name", ["x" * 250, "\u202eשלום", "<script>alert(1)</script>".replace("/", "∕"), "a b'c\"d&e", "😀"])
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


# --- the cache --------------------------------------------------------------------------------------------------------


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files were decoded, call by call."""
    counts: list[int] = []
    original = image_store.decode_group

    def counted(files: Any, *args: Any, **options: Any) -> Any:
        counts.append(len(files))
        return original(files, *args, **options)

    monkeypatch.setattr(image_store, "decode_group", counted)
    return counts


def test_a_second_start_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, counts = fill(tmp_path / "pets"), decodings(monkeypatch)
    first = folder(path=str(root))
    assert sum(counts) == 30
    assert folder(path=str(root)).fingerprint == first.fingerprint
    assert sum(counts) == 30


def test_a_copy_or_a_touched_folder_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, counts = fill(tmp_path / "pets"), decodings(monkeypatch)
    first = folder(path=str(root))
    os.utime(root / "cat" / "000.png", ns=(1, 1))
    assert folder(path=str(root)).fingerprint == first.fingerprint
    root.rename(tmp_path / "moved")
    assert folder(path=str(tmp_path / "moved")).fingerprint == first.fingerprint
    assert sum(counts) == 30


@pytest.mark.parametrize("change", ["pixels", "rename", "remove", "add"])
def test_what_changes_is_seen(tmp_path: Path, change: str) -> None:
    root = fill(tmp_path / "pets")
    before = folder(path=str(root)).fingerprint
    file = root / "cat" / "003.png"
    if change == "pixels":
        picture(0, 77).save(file)
    elif change == "rename":
        file.rename(root / "dog" / "777.png")
    elif change == "remove":
        file.unlink()
    else:
        picture(0, 78).save(root / "cat" / "new.png")
    assert folder(path=str(root)).fingerprint != before


def test_many_files_are_decoded_by_several_processes_to_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    root = fill(tmp_path / "pets", n=30)
    alone = folder(path=str(root))
    monkeypatch.setattr(image_store, "GROUP", 16)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "other"))
    together = folder(path=str(root))
    assert together.fingerprint == alone.fingerprint
    assert all(np.array_equal(a, b) for a, b in zip(pixels(together).values(), pixels(alone).values()))
    picture(0, 99, (7, 9)).save(root / "cat" / "000b.png")
    with pytest.raises(DataError, match="differ in size"):
        folder(path=str(root))
    assert not list((cache / "other").rglob(".partial-*"))


def test_beyond_the_limit_the_files_are_kept_and_decoded_for_each_batch(tmp_path: Path) -> None:
    root = nasty(tmp_path / "pets")
    mapped = folder(path=str(root), unreadable="skip")
    kept = folder(path=str(root), unreadable="skip", cache_gb=1e-9, validation=7)
    assert isinstance(kept.train.images, Stored)
    assert not (kept.train.images.folder / "encoded").exists(), "decoded before, so the pixels are there"
    other = folder(path=str(root), unreadable="skip", cache_gb=1e-9, size=4)
    assert isinstance(other.train.images, Stored)
    assert (other.train.images.folder / "encoded").exists()
    assert not (other.train.images.folder / "pixels").exists()
    small = folder(path=str(root), unreadable="skip", size=4, colours="rgb")
    assert small.fingerprint == other.fingerprint
    assert all(np.array_equal(a, b) for a, b in zip(pixels(small).values(), pixels(other).values()))
    batch = next(other.train.batches(5, seed=3))
    assert torch.equal(batch.x, small.train.floats(small.train.images[batch.places]))
    assert mapped.shape == (3, 6, 5)


def test_memory_stays_bounded_beyond_the_limit(tmp_path: Path) -> None:
    """600 pictures, 670 MB as pixels, read twice in batches of 16 (72 MB as float32), take no more than a few batches."""
    root = tmp_path / "large"
    for name, colour in (("a", 10), ("b", 200)):
        (root / name).mkdir(parents=True)
        buffer = io.BytesIO()
        Image.new("RGB", (612, 612), (colour, 0, 0)).save(buffer, "JPEG")
        for k in range(300):
            (root / name / f"{k}.jpg").write_bytes(buffer.getvalue())
    code = f"""
import torch
torch.set_num_threads(1)
from stresslens.core.devices import peak_memory, start_watching_memory
from stresslens.datasets.folder import folder
folder(path={str(root)!r}, size=8)  # imports done
start_watching_memory("cpu")
before = peak_memory("cpu")
data = folder(path={str(root)!r}, cache_gb=0.1, validation=0)
for epoch in range(2):
    for batch in data.train.batches(16, seed=0, epoch=epoch):
        pass
print((peak_memory("cpu") - before) / 1e6 if before else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 350


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    root = fill(tmp_path / "pets")
    monkeypatch.setattr(image_store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(DataError, match=r"the decoded images take .* GB free\. Free some, set XDG_CACHE_HOME"):
        folder(path=str(root))
    assert not list(cache.rglob("pixels"))


def test_a_killed_decoding_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    root = fill(tmp_path / "pets")

    def killed(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(image_store, "decode_group", killed)
        with pytest.raises(KeyboardInterrupt):
            folder(path=str(root))
    assert not list(cache.rglob("meta.json"))
    assert len(folder(path=str(root)).train) == 18


def test_an_error_of_the_disk_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stresslens.core import pictures

    root, original = fill(tmp_path / "pets"), pictures.read

    def failing(file: Any) -> bytes:
        if str(file).endswith("dog/003.png"):
            raise OSError(5, "Input/output error")
        return original(file)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "read", failing)
        with pytest.raises(DataError, match=r"dog/003.png: Input/output error"):
            folder(path=str(root))
    assert len(folder(path=str(root)).train) == 18


def test_a_higher_limit_is_obeyed_later(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    first = folder(path=str(root), cache_gb=1e-9)
    assert isinstance(first.train.images, Stored)
    assert not (first.train.images.folder / "pixels").exists()
    second = folder(path=str(root))
    assert isinstance(second.train.images, Stored)
    assert (second.train.images.folder / "pixels").exists()
    assert second.fingerprint == first.fingerprint


def test_what_a_killed_process_left_is_removed(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "pets")
    pictures = Path(folder(path=str(root)).train.images.folder).parent  # type: ignore[union-attr]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        (pictures / f".partial-{pid}-x").mkdir()
    folder(path=str(root), size=3)
    assert [path.name for path in pictures.glob(".partial-*")] == [f".partial-{os.getpid()}-x"]


def test_links_and_later_members_of_a_tar(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "cat" / "link.png").symlink_to("000.png")
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("pets/cat/000.png"), io.BytesIO(b""))  # superseded by the next of its name
        for file in sorted(root.rglob("*.png")):
            archive.add(file, f"pets/{file.relative_to(root).as_posix()}")
    assert folder(path=str(tmp_path / "pets.tar")).fingerprint == folder(path=str(root)).fingerprint


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "pets")
    (root / "cat" / "loop.png").symlink_to("loop.png")
    (root / "dog" / "dangling.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"(?s)cat/loop.png: Too many levels .*dog/dangling.png: No such file"):
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


def test_slices_that_are_named_are_told_by_whatever_their_number(tmp_path: Path) -> None:
    assert folder(path=str(fill(tmp_path / "pets")), slices=[]).slices == ()
    rows = [["path", "label", "house"], *([f"{n}/00{k}.png", n, f"house {k}"] for n in ("cat", "dog") for k in range(10))]
    assert folder(path=table(tmp_path / "pets", rows), slices=["house"]).slices == ("house",)


@pytest.mark.slow
@pytest.mark.skipif(
    not (REAL and (Path(REAL) / "cifar10-jpeg.tar.xz").is_file()), reason="needs cifar10-jpeg.tar.xz under STRESSLENS_DATA"
)
def test_sixty_thousand_real_photographs(tmp_path: Path) -> None:
    archive = Path(str(REAL)) / "cifar10-jpeg.tar.xz"
    data = folder(path=str(archive))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 40_000, "validation": 10_000, "test": 10_000}
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
    from stresslens import find

    root = fill(tmp_path / "pets")
    assert find.resolve("datasets", {"folder": {"path": str(root), "size": [4, 8]}})().shape == (3, 4, 8)
