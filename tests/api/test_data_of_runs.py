"""The data of a run, loaded when they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from finished_runs import OPTIONS, Finished
from PIL import Image

import stresslens as sl


def test_the_data_of_a_named_data_set(subjects: Finished) -> None:
    data = sl.open(subjects.run.folder).data
    assert data.fingerprint == subjects.run.record["data"]["fingerprint"]
    assert len(data.train) == subjects.run.data.train.images.shape[0] == 100
    again = subjects.run.data
    assert again is subjects.run.data


def test_data_from_python(tmp_path: Path) -> None:
    images, labels = torch.rand(60, 1, 4, 4), torch.arange(60) % 2
    data = sl.Data.from_arrays(images, labels)
    run = sl.train("linear", data, out=tmp_path, **OPTIONS)
    assert run.data.fingerprint == data.fingerprint
    with pytest.raises(sl.ConfigError, match=r"give these data from Python, for example sl.open\(RUN, data="):
        _ = sl.open(run.folder).data
    assert sl.open(run.folder, data=data).data.fingerprint == data.fingerprint
    other = sl.Data.from_arrays(1 - images, labels)
    with pytest.raises(sl.ConfigError, match="other data than the run was trained on"):
        _ = sl.open(run.folder, data=other).data


def test_data_that_are_gone(tmp_path: Path) -> None:
    for name, white in (("a", 0), ("b", 255)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(20):
            pixels = np.full((8, 8), abs(white - k), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    run = sl.train("linear", tmp_path / "photos", out=tmp_path / "runs", **OPTIONS)
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(sl.StresslensError, match=r"say where: data=PATH"):
        _ = sl.open(run.folder).data
    assert sl.open(run.folder, data=tmp_path / "moved").data.classes == ("a", "b")
