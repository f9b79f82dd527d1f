"""A path whose files another dataset reads: the message says which, as a value to copy."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hugging_face_files import pictures, save_to_disk, table_of, write_parquet

from stresslens.config import registry
from stresslens.config.yaml_source import parse_value
from stresslens.core.errors import DataError

LABELS = [k % 2 for k in range(20)]


def parquet_folder() -> str:
    write_parquet(Path("set/train-00000-of-00001.parquet"), pictures(20), LABELS)
    return "set"


def saved_folder() -> str:
    save_to_disk(Path("set"), {"train": table_of(pictures(20), LABELS)})
    return "set"


def parquet_file() -> str:
    write_parquet(Path("set.parquet"), pictures(20), LABELS)
    return "set.parquet"


def arrays() -> str:
    np.savez("set.npz", x=np.zeros((20, 5, 5), np.uint8), y=LABELS)
    return "set.npz"


def folder_of_arrays() -> str:
    Path("set").mkdir()
    np.save("set/x.npy", np.zeros((20, 5, 5), np.uint8))
    np.save("set/y.npy", np.array(LABELS))
    return "set"


def shard() -> str:
    with tarfile.open("set.tar", "w") as archive:
        for k, picture in enumerate(pictures(20)):
            for name, content in ((f"{k:03d}.png", picture), (f"{k:03d}.cls", str(LABELS[k]).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return "set.tar"


WRITTEN = [parquet_folder, saved_folder, parquet_file, arrays, folder_of_arrays, shard]


@pytest.mark.parametrize("write", WRITTEN)
def test_the_dataset_that_reads_it_is_named(
    write: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write()
    with pytest.raises(DataError, match="which another dataset reads: ") as caught:
        registry.resolve("datasets", {"folder": {"path": path}})()
    value = parse_value(str(caught.value).partition("which another dataset reads: ")[2])
    assert len(registry.resolve("datasets", value)().train) in (12, 16)  # with and without a test part
