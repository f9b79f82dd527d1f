"""WebDataset shards: which members are samples, which archives are parts, and hostile members refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hugging_face_files import pictures, png

from stresslens.config import registry
from stresslens.core.cache_folder import cache_root
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.image_files import Frame, decode
from stresslens.plugins.datasets import _tar_samples


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_tar(path: str | Path, members: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def shard(n: int, seed: int = 0, suffix: str = "png", label: str = "cls") -> dict[str, bytes]:
    members = {}
    for k, content in enumerate(pictures(n, seed)):
        members |= {f"{k:06d}.{suffix}": content, f"{k:06d}.{label}": str(k % 2).encode()}
    return members


def load(path: str, **options: Any) -> Data:
    data: Data = registry.resolve("datasets", {"webdataset": {"path": path, **options}})()
    return data


def sizes(data: Data) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def test_shards_are_parts_by_their_names() -> None:
    for k in range(2):
        write_tar(f"shards/set-train-{k:06d}.tar", shard(10, k))
    write_tar("shards/set-val-000000.tar", shard(6, 2))
    write_tar("shards/set-test-000000.tar", shard(8, 3))
    data = load("shards/*.tar")
    assert sizes(data) == {"train": 20, "validation": 6, "test": 8}
    assert data.classes == ("0", "1")
    expected = [decode(each, Frame(3, None)).pixels for k in range(2) for each in pictures(10, k)]
    assert np.array_equal(data.train.images[:].numpy(), np.stack(expected))
    assert data.train.labels.tolist() == [k % 2 for k in range(10)] * 2
    assert data.train.columns["file"][0] == "set-train-000000.tar/000000.png"
    assert sizes(load("shards")) == sizes(data)
    assert (
        load("shards/set-?????-00000[01].tar", test=0).name == load("shards/*-train-*.tar").name == "shards"
    )
    assert sizes(load("shards/set-train-{000000..000001}.tar", test=0, validation=0)) == {"train": 20}


def test_folders_are_parts_and_names_lie_beside_the_shards() -> None:
    write_tar("wds/train/0.tar", shard(20, suffix="webp"))
    write_tar("wds/test/0.tar.gz", shard(6, 1, suffix="jpeg"), "w:gz")
    Path("wds/classnames.txt").write_text("cat\ndog\nowl\n", encoding="utf-8-sig")
    data = load("wds", validation=0)
    assert sizes(data) == {"train": 20, "test": 6}
    assert data.classes == ("cat", "dog", "owl")


def test_the_index_of_a_shard_is_kept_and_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar("all.tar", shard(20))
    first = load("all.tar")
    read = []
    with monkeypatch.context() as patched:
        patched.setattr(_tar_samples, "_listed", lambda path, label: read.append(path) or iter(()))
        assert load("all.tar").fingerprint == first.fingerprint
    assert not read
    write_tar("all.tar", shard(30))
    assert sum(sizes(load("all.tar")).values()) == 30
    for index in cache_root().rglob("*.samples.json"):
        index.write_text('{"members": [1]}')
    assert sum(sizes(load("all.tar")).values()) == 30


def test_one_shard_is_divided() -> None:
    write_tar("all.tar", shard(20))
    data = load("all.tar", test=4, validation=4)
    assert sizes(data) == {"train": 12, "validation": 4, "test": 4}
    assert data.name == "all.tar"


def test_labels_are_words_or_keys_of_json() -> None:
    members: dict[str, bytes] = {}
    for k, content in enumerate(pictures(20)):
        facts = {"about": {"kind": ["cat", "dog"][k % 2]}, "number": k % 2}
        members |= {
            f"a/{k}.jpg": content,
            f"a/{k}.json": json.dumps(facts).encode(),
            f"a/{k}.txt": b"a caption",
            f"a/{k}.seg.png": content,
        }
    write_tar("all.tar", members)
    assert load("all.tar", label="json.about.kind").classes == ("cat", "dog")
    assert load("all.tar", label="json.number").classes == ("0", "1")
    with pytest.raises(DataError, match=r"json\.about\.sort: there is no key 'sort'; valid: kind"):
        load("all.tar", label="json.about.sort")
    with pytest.raises(DataError, match=r"json\.number\.x: there is no key 'x'"):
        load("all.tar", label="json.number.x")
    with pytest.raises(DataError, match=r"no labels by their names.*jpg, json.*`label: json\.KEY`"):
        load("all.tar")
    write_tar("words.tar", {**shard(18), "x.png": pictures(1, 1)[0], "x.cls": b"10\n", "y.txt": b"no sample"})
    with pytest.raises(DataError, match=r"the sample y has 0 pictures \(txt\)"):
        load("words.tar")


def test_numbers_are_sorted_as_numbers() -> None:
    members = shard(20)
    for k in range(4):
        members |= {f"x{k}.png": pictures(1, 50 + k)[0], f"x{k}.cls": b"10\n"}
    write_tar("all.tar", members)
    assert load("all.tar", test=0, validation=0).classes == ("0", "1", "10")


def test_numbers_of_thousands_of_digits_are_words() -> None:
    members = {name: b"9" * 5000 if content == b"1" else content for name, content in shard(20).items()}
    write_tar("all.tar", members)
    assert load("all.tar").classes == ("0", "9" * 5000)


def test_a_suffix_of_pictures_is_chosen() -> None:
    members = shard(20) | {f"{k:06d}.jpg": each for k, each in enumerate(pictures(20, 1))}
    write_tar("all.tar", members)
    with pytest.raises(DataError, match=r"the sample 000000 has 2 pictures \(png, cls, jpg\); expected one"):
        load("all.tar")
    data = load("all.tar", image="jpg", test=0, validation=0)
    expected = [decode(each, Frame(3, None)).pixels for each in pictures(20, 1)]
    assert np.array_equal(data.train.images[:].numpy(), np.stack(expected))
    assert load("all.tar", image=".JPG", label=".CLS").classes == ("0", "1")
    with pytest.raises(ConfigError, match=r"has no members \.jpeg; did you mean 'jpg'"):
        load("all.tar", image="jpeg")


def link(name: str, kind: bytes, target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE: dict[str, tuple[dict[str, bytes | tarfile.TarInfo], str]] = {
    "above": ({"../../outside.png": b"x"}, r"'\.\./\.\./outside\.png' leads outside"),
    "inside a path": ({"a/../../b.png": b"x"}, "leads outside"),
    "absolute": ({"/etc/cron.d/job.png": b"x"}, "leads outside"),
    "of Windows": ({"C:\\job.png": b"x"}, "leads outside"),
    "backslashes": ({"..\\job.png": b"x"}, "leads outside"),
    "a link": ({"1.png": link("1.png", tarfile.SYMTYPE)}, "is a link or a device"),
    "a hard link": ({"1.png": link("1.png", tarfile.LNKTYPE)}, "is a link or a device"),
    "a device": ({"1.png": link("1.png", tarfile.CHRTYPE)}, "is a link or a device"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_members_are_refused(kind: str) -> None:
    members, says = HOSTILE[kind]
    write_tar("all.tar", {**shard(20), **members})
    before = sorted(Path().rglob("*"))
    with pytest.raises(DataError, match=rf"all\.tar: the member .*{says}|all\.tar: the member {says}"):
        load("all.tar")
    assert sorted(Path().rglob("*")) == before


BAD: list[tuple[dict[str, bytes], str]] = [
    ({"x.png": b"no picture", "x.cls": b"0"}, r"1 of 21 files cannot be read as images\nall\.tar/x\.png"),
    ({"x.png": pictures(1, 9)[0]}, "the sample x has no cls; it has png"),
    ({"x.cls": b"0"}, r"the sample x has 0 pictures \(cls\)"),
    ({"x.png": pictures(1, 9)[0], "x.cls": b"0.5"}, "cls is 0.5; expected a word, or a whole number"),
    ({"x.png": pictures(1, 9)[0], "x.cls": b"-1"}, "cls is -1; expected a word, or a whole number"),
    ({"x.png": pictures(1, 9)[0], "x.cls": b""}, "cls is '';"),
    ({"x.png": pictures(1, 9)[0], "x.cls": b"0" * 2**21}, "cls has 2 MB, and a label is a word or a number"),
    ({"x.png": pictures(1, 9)[0], "x.cls": b"\xff\xfe"}, "cls cannot be read"),
]


@pytest.mark.parametrize(("members", "says"), BAD, ids=[says for _, says in BAD])
def test_samples_that_are_no_pictures_with_classes_are_refused(members: dict[str, bytes], says: str) -> None:
    write_tar("all.tar", {**shard(20), **members})
    with pytest.raises(DataError, match=says) as caught:
        load("all.tar")
    assert "all.tar" in str(caught.value)


@pytest.mark.slow
def test_archives_that_are_not_there_or_damaged_are_refused() -> None:
    with pytest.raises(DataError, match=r"there are no tar archives at shards/\*\.tar \(working folder"):
        load("shards/*.tar")
    with pytest.raises(DataError, match="is an address; download the shards"):
        load("https://example.org/{000..009}.tar")
    with pytest.raises(DataError, match="is an address"):
        load("pipe:aws s3 cp s3://b/a.tar -")
    Path("all.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"all\.tar is no tar archive, or it is damaged"):
        load("all.tar")
    write_tar("empty.tar", {})
    with pytest.raises(DataError, match="hold no samples"):
        load("empty.tar")
    write_tar("all.tar", shard(20))
    content = Path("all.tar").read_bytes()
    for length in (512, 5000, len(content) // 2):
        Path("all.tar").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"all\.tar"):
            load("all.tar")
    for place in range(0, len(content), 301):
        Path("all.tar").write_bytes(content[:place] + b"\xff" + content[place + 1 :])
        with suppress(DataError, ConfigError):
            load("all.tar", unreadable="skip")
    write_tar("mixed/train-0.tar", shard(10))
    write_tar("mixed/other-0.tar", shard(10))
    with pytest.raises(DataError, match=r"other-0\.tar does not say which part it is"):
        load("mixed")
    write_tar("twice.tar", shard(20))
    with tarfile.open("twice.tar", "a") as archive:
        info = tarfile.TarInfo("000000.cls")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"1"))
    with pytest.raises(DataError, match=r"000000\.cls is there twice"):
        load("twice.tar")
    write_tar("names/all.tar", shard(20))
    Path("names/classes.txt").write_bytes("Käfer\nHund\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"classes\.txt, the names of the classes, cannot be read as UTF-8"):
        load("names")
    Path("names/classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match=r"classes\.txt names 1 class, and there is a label 1"):
        load("names")
    Path("names/classes.txt").write_text("cat\ncat\n")
    with pytest.raises(DataError, match=r"classes\.txt has the class 'cat' more than once"):
        load("names")
    Path("names/classes.txt").unlink()
    Path("names/gone.tar").symlink_to("gone.tar")
    with pytest.raises(DataError, match=r"gone\.tar is a link to a file that is not there"):
        load("names")
    write_tar("whole.tar", shard(20))
    with pytest.raises(ConfigError, match=r"size: 100000×100000 pixels are more than the 178,956,970"):
        load("whole.tar", size=100_000)


def test_pictures_of_several_sizes_and_groups() -> None:
    members = shard(20) | {"x-20.png": png(np.zeros((30, 20, 3), np.uint8)), "x-20.cls": b"1"}
    write_tar("all.tar", members)
    with pytest.raises(DataError, match=r"all\.tar: the images differ in size.*set `size`"):
        load("all.tar")
    data = load("all.tar", size=8, group=r"(\d)\.png$")
    assert data.shape == (3, 8, 8)
    groups = [set(split.columns["group"]) for split in data.splits.values()]
    assert not groups[0] & groups[1]
