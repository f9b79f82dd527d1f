"""Decoded pictures go to a cache of the test's own, and temporary files too; sets of torchvision have an
empty data root."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from torchvision_files import Places, arrays_as_h5py, unchecked

from stresslens.core import cache_folder, data_root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A data root and a cache, both empty, no way to download, and no checksums."""
    root, cache = tmp_path / "data", tmp_path / "cache"
    root.mkdir()
    monkeypatch.setenv("STRESSLENS_DATA", str(root))
    for module in (data_root, cache_folder):
        monkeypatch.setattr(module, "cache_root", lambda: cache)
    unchecked(monkeypatch)
    arrays_as_h5py(monkeypatch)

    def offline(*arguments: Any, **keywords: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    return root, cache
