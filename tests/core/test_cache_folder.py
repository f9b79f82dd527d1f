"""A cache folder that cannot be written: the work goes on, and one sentence says where."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stresslens as sl
from stresslens.core import cache_folder
from stresslens.core.cache_folder import cache_problem, readable_caches, writable_cache
from stresslens.core.errors import DataError, Notice
from stresslens.evaluation.data_check import data_findings
from stresslens.plugins.datasets.digits import digits
from stresslens.plugins.datasets.folder import folder


def a_file(place: Path) -> None:
    place.write_text("")


def a_dangling_link(place: Path) -> None:
    place.symlink_to(place.with_name("nowhere") / "else")


def a_file_inside(place: Path) -> None:
    place.mkdir()
    (place / "stresslens").write_text("")


SPOILED: dict[str, Callable[[Path], None]] = {
    "a file": a_file,
    "a dangling link": a_dangling_link,
    "a file inside": a_file_inside,
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    cache_folder._tell.cache_clear()
    return tmp_path / "temporary" / f"stresslens-{os.getuid()}"


@pytest.fixture(params=SPOILED)
def spoiled(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    SPOILED[request.param](tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def photos(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for k in range(10):
            pixels = np.random.default_rng([k, ord(name[0])]).integers(0, 256, (6, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{k}.png")
    return root


def test_own_images_are_read_with_one_notice_and_not_decoded_again(
    tmp_path: Path, spoiled: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos")
    shutil.make_archive(str(tmp_path / "packed"), "gztar", root)
    with pytest.warns(Notice) as told:
        data = folder(path=str(root))
    (notice,) = told
    data_findings(data)  # without a second one
    folder(path=str(tmp_path / "packed.tar.gz"))
    said = str(notice.message)
    assert str(spoiled) in said
    assert str(temporary) in said
    assert "XDG_CACHE_HOME" in said
    assert temporary.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr("stresslens.core.parallel_decode.decode_group", None)
    assert folder(path=str(root)).fingerprint == data.fingerprint


@pytest.mark.breadth(1)
def test_a_run_goes_on(tmp_path: Path, spoiled: Path, temporary: Path) -> None:
    with pytest.warns(Notice, match="is used instead"):
        run = sl.train("linear", "digits", epochs=1, out=tmp_path / "runs")
    assert run.scores()["accuracy"].n == 360
    assert "cannot be written" in str(cache_problem())


def test_a_full_disk(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usage = shutil.disk_usage(tmp_path)

    def nearly_full(path: Path) -> object:
        return usage._replace(free=10 if str(path).startswith(str(tmp_path / "cache")) else 10**6)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with pytest.warns(Notice, match=r"has 0.0 GB free; .*temporary.* is used instead"):
        assert len(folder(path=str(photos(tmp_path / "photos"))).train) == 12
    assert cache_problem() is None


def test_a_cache_that_can_only_be_read_is_read(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = folder(path=str(photos(tmp_path / "photos")))

    def refused(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert folder(path=str(tmp_path / "photos")).fingerprint == data.fingerprint
    with pytest.raises(DataError, match=r"cannot be written \(Permission denied\), and .*XDG_CACHE_HOME"):
        folder(path=str(tmp_path / "photos"), size=3)
    assert data_findings(digits())  # without a place for them, they are looked for again


def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path, spoiled: Path, temporary: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)
    assert temporary not in readable_caches()
    with pytest.raises(DataError, match="can be written by others"):
        writable_cache("pictures")
