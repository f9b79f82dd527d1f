"""What the system refuses is told in words: the path, the bytes that are needed and those that are free."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mishaps import full

from stresslens.core.disk_errors import os_error_behind, refusal
from stresslens.core.errors import StresslensError
from stresslens.core.files import write_atomically, write_bytes
from stresslens.core.run_folder import RunFolder


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 200,000 bytes, as on a disk with no more space."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_does_not_fit_is_told_in_words(tmp_path: Path, small_files: None) -> None:
    """torch reports it as `unexpected pos 361984 vs 361872`."""
    folder = RunFolder(tmp_path)
    folder.save_checkpoint({"position": 1})
    before = folder.checkpoint.read_bytes()
    with pytest.raises(StresslensError) as caught:
        folder.save_checkpoint({"weights": torch.zeros(100_000)})
    assert "larger than a file may be here" in str(caught.value)
    assert "unexpected pos" not in str(caught.value)
    assert folder.checkpoint.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    state = {"weights": torch.zeros(500_000)}
    with pytest.raises(
        StresslensError,
        match=r"cannot write .*a\.pt: the disk is full: it needs 2\.0 MB, [\d,.]+ MB are free\.",
    ):
        write_atomically(tmp_path / "a.pt", lambda file: torch.save(state, file))
    with pytest.raises(StresslensError, match=r"it needs less than 0\.1 MB, .*free some space"):
        write_bytes(tmp_path / "a.json", b"{}")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.ENAMETOOLONG, "longer than a file's name may be"),
        (errno.EIO, "input/output error"),
        (errno.ENODEV, "No such device"),
    ],
)
def test_every_refusal_has_words(number: int, words: str, tmp_path: Path) -> None:
    assert words in refusal(OSError(number, os.strerror(number)), tmp_path / "x")


def test_the_error_behind_another() -> None:
    cause = OSError(errno.ENOSPC, "x")
    other = RuntimeError("unexpected pos 64 vs 0")
    other.__context__ = cause
    assert os_error_behind(other) is cause
    assert os_error_behind(RuntimeError("a reason of its own")) is None
    assert refusal(RuntimeError("a reason of its own")) == "a reason of its own"


def test_a_name_that_no_file_can_have_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(StresslensError, match="longer than a file's name may be"):
        write_bytes(tmp_path / ("a" * 300), b"")
