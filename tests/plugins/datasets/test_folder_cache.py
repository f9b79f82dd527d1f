"""The cache of decoded pictures may be trusted: it is whole, it is of these files, and it is bounded."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pets import fill, nasty, picture, pixels
from PIL import Image

from stresslens.core import cache_damage, image_cache, parallel_decode
from stresslens.core import image_files as pictures
from stresslens.core.errors import DataError, Notice
from stresslens.core.stored_images import Stored
from stresslens.plugins.datasets.folder import folder


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files were decoded, call by call."""
    counts: list[int] = []
    original = parallel_decode.decode_group

    def counted(files: Any, *args: Any, **options: Any) -> Any:
        counts.append(len(files))
        return original(files, *args, **options)

    monkeypatch.setattr(parallel_decode, "decode_group", counted)
    return counts


def test_a_second_start_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, counts = fill(tmp_path / "pets"), decodings(monkeypatch)
    first = folder(path=str(root))
    assert sum(counts) == 30
    assert folder(path=str(root)).fingerprint == first.fingerprint
    assert sum(counts) == 30


def test_a_copy_or_a_touched_folder_is_known_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr(parallel_decode, "GROUP", 16)
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


@pytest.mark.slow
def test_memory_stays_bounded_beyond_the_limit(tmp_path: Path) -> None:
    """400 pictures, 450 MB as pixels, read twice in batches of 16 (72 MB as float32), take no more
    than a few batches."""
    root = tmp_path / "large"
    for name, colour in (("a", 10), ("b", 200)):
        (root / name).mkdir(parents=True)
        buffer = io.BytesIO()
        Image.new("RGB", (612, 612), (colour, 0, 0)).save(buffer, "JPEG")
        for k in range(200):
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


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    root = fill(tmp_path / "pets")
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    said = r"the decoded images take .* GB free, and .* GB free\. Free some space, set XDG_CACHE_HOME"
    with pytest.raises(DataError, match=said):
        folder(path=str(root))
    assert not list(cache.rglob("pixels"))


def test_a_killed_decoding_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    root = fill(tmp_path / "pets")

    def killed(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parallel_decode, "decode_group", killed)
        with pytest.raises(KeyboardInterrupt):
            folder(path=str(root))
    assert not list(cache.rglob("meta.json"))
    assert len(folder(path=str(root)).train) == 18


def test_an_error_of_the_disk_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, original = fill(tmp_path / "pets"), pictures.read_image

    def failing(file: Any) -> bytes:
        if str(file).endswith("dog/003.png"):
            raise OSError(5, "Input/output error")
        return original(file)

    with monkeypatch.context() as patch:
        patch.setattr(pictures, "read_image", failing)
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


def zeros(file: Path) -> None:
    """What a power cut leaves of pixels that never reached the disk."""
    content = bytearray(file.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    file.write_bytes(content)


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.breadth(4)
@pytest.mark.parametrize("damage", [zeros, flipped, cut, Path.unlink])
@pytest.mark.parametrize("name", ["pixels", "facts.npy", "meta.json", "encoded"])
def test_a_damaged_cache_is_named_and_made_again(
    tmp_path: Path, name: str, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, counts = fill(tmp_path / "pets"), decodings(monkeypatch)
    options: dict[str, Any] = {"path": str(root), "cache_gb": 1e-9 if name == "encoded" else 1.0}
    before = folder(**options)
    whole = {split: images.copy() for split, images in pixels(before).items()}
    assert isinstance(before.train.images, Stored)
    damage(before.train.images.folder / name)
    with pytest.warns(Notice, match=r"pets: the cache of decoded images .* is damaged"):
        again = folder(**options)
    assert sum(counts) == 60
    assert again.fingerprint == before.fingerprint
    assert all(np.array_equal(whole[split], images) for split, images in pixels(again).items())
    folder(**options)  # and it is whole from now on
    assert sum(counts) == 60


def test_a_cache_is_read_for_damage_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path / "pets")
    folder(path=str(root))
    read: list[int] = []
    original = cache_damage._differing
    monkeypatch.setattr(cache_damage, "_differing", lambda *given: read.append(1) or original(*given))
    folder(path=str(root))
    folder(path=str(root))
    assert len(read) == 1


def test_a_damaged_index_is_made_again(tmp_path: Path, cache: Path) -> None:
    root = fill(tmp_path / "pets")
    before = folder(path=str(root)).fingerprint
    for index in cache.rglob("index/*.json"):
        index.write_text('{"fol')
    assert folder(path=str(root)).fingerprint == before


def test_decoded_pixels_are_on_the_disk_before_their_folder_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(image_cache, "sync", lambda path: synced.append(path.name))
    folder(path=str(fill(tmp_path / "pets")))
    assert synced[0] == "pixels"
    assert synced[1] == "decoded"
    assert synced[2] == "pictures"
