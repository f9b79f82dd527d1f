"""Every data set has the option `corrections`: built-in ones, folders and a user's own, in a study and in
its run, also when the file changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stresslens.config.data_sets import loaded_data_set
from stresslens.config.study_file import expand_study
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.run_data import same_data_of
from stresslens.study import pipeline
from stresslens.study.run_tasks import tasks_of
from stresslens.training.task import load_data

OWN = '''
import torch
from stresslens.core.data import Data, Split

def stripes(*, corrections: int = 0) -> Data:
    """Stripes; `corrections` is an option of its own."""
    split = Split(torch.arange(16, dtype=torch.uint8).reshape(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]))
    return Data(split, None, None, ("a", "b"), f"stripes {corrections}")

def bands() -> Data:
    return stripes()
'''


def write(path: Path, *rows: str) -> str:
    path.write_text("\n".join(["file,label", *rows]) + "\n")
    return str(path)


def test_of_any_kind(tmp_path: Path) -> None:
    file = write(tmp_path / "c.csv", "train[0],7")
    assert loaded_data_set({"digits": {"corrections": file}}).train.labels[0] == 7
    (tmp_path / "own.py").write_text(OWN)
    ours = write(tmp_path / "ours.csv", "train[0],b", "train[3],drop")
    data = loaded_data_set({"own.py:bands": {"corrections": ours}}, base=tmp_path)
    assert data.train.labels.tolist() == [1, 1, 0]
    data = loaded_data_set({"own.py:stripes": {"corrections": 3}}, base=tmp_path)
    assert (data.name, data.train.labels.tolist()) == ("stripes 3", [0, 1, 0, 1])
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for k in range(10):
            pixels = np.full((4, 4, 3), 20 * k + (name == "dog"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{k}.png")
    file = write(tmp_path / "pets.csv", "cat/3.png,dog", "dog/9.png,drop")
    data = loaded_data_set({"folder": {"path": str(tmp_path / "pets"), "corrections": file}})
    found = {
        split.columns["file"][k]: data.classes[split.labels[k]]
        for split in data.splits.values()
        for k in range(len(split))
    }
    assert (len(found), found["cat/3.png"], found["cat/2.png"]) == (19, "dog", "cat")
    assert "dog/9.png" not in found


def test_a_study_trains_on_them_and_its_run_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.csv", "train[0],7", "test[3],drop")
    data = {"digits": {"subset": 200, "test": 100, "corrections": "c.csv"}}
    study = expand_study({"study": "s", "data": data, "estimator": "knn"}, name="s", base=tmp_path)
    (task,) = tasks_of(study, tmp_path / "runs" / "s")
    assert len(load_data(task).test or ()) == 99
    folder = pipeline.run(study, out=tmp_path / "runs")
    run = RunFolder(next(folder.glob("*/seed-0")))
    assert len(same_data_of(run).test or ()) == 99
    monkeypatch.chdir(run.path)
    assert len(same_data_of(RunFolder(run.path)).test or ()) == 99
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "c.csv", "train[0],7")
    assert len(load_data(task).test or ()) == 100, "the file has changed"
    with pytest.raises(ConfigError, match="the data set has changed since the run was trained"):
        same_data_of(run)
    (tmp_path / "c.csv").unlink()
    with pytest.raises(DataError, match=r"corrections: .*c\.csv cannot be read"):
        same_data_of(run)
