"""Data-size curves: which images a size has, how its updates follow, and what the report says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stresslens.config import study_file
from stresslens.config.data_sizes import DataSizePoint, DataSizes
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import fewer
from stresslens.evaluation.finished_run import data_of
from stresslens.study import pipeline
from stresslens.training.task import Task, load_data

TEXT = """
data: digits
model: linear
train: {epochs: 2, batch_size: 50, optimizer: sgd, precision: float32, threads: 1, memory_format: contiguous}
"""


def read(tmp_path: Path, text: str) -> study_file.Study:
    file = tmp_path / "sizes.yaml"
    file.write_text(TEXT + text)
    return study_file.read_study(file)


def rows(data: Data) -> set[bytes]:
    return {image.numpy().tobytes() for image in data.train.images}


@pytest.mark.parametrize("balanced", [True, False])
def test_a_larger_size_holds_the_smaller(balanced: bool, small: Data) -> None:
    sizes = [fewer(small, size, balanced=balanced, seed=3) for size in (20, 50, 120)]
    held = [rows(data) for data in sizes]
    assert held[0] < held[1] < held[2] == rows(small)
    assert rows(fewer(small, 50, balanced=balanced, seed=4)) != held[1]
    counts = sizes[1].train.labels.bincount()
    assert (counts.max() - counts.min() <= 1) == balanced
    assert sizes[0].test is small.test


def test_classes_that_run_out_are_told() -> None:
    labels = torch.tensor([0] * 5 + [1] * 30)
    data = Data.from_arrays(
        torch.arange(35 * 4, dtype=torch.uint8).reshape(35, 1, 2, 2),
        labels,
        classes=["few", "many"],
        validation=0,
        test=0,
    )
    assert fewer(data, 10, seed=0).notes == data.notes
    more = fewer(data, 20, seed=0)
    assert more.train.labels.bincount().tolist() == [5, 15]
    assert "the smallest class, few, has 5" in more.notes[-1]
    with pytest.raises(ConfigError, match="a subset of 36 training images was asked for"):
        fewer(data, 36, seed=0)


def test_every_run_at_every_size(tmp_path: Path) -> None:
    found = read(tmp_path, "runs: {a: {}, b: {model: mlp}}\ndata_sizes: {sizes: [100, 400]}\n")
    assert [run.name for run in found.variants] == ["a,size=100", "a,size=400", "b,size=100", "b,size=400"]
    assert found.curves == [
        ("a", [(100, "a,size=100"), (400, "a,size=400")]),
        ("b", [(100, "b,size=100"), (400, "b,size=400")]),
    ]
    assert {run.config.train.epochs for run in found.variants} == {2}
    assert [run.config.train.subset.images for run in found.variants if run.config.train.subset] == [
        100,
        400,
        100,
        400,
    ]


def test_the_same_updates(tmp_path: Path) -> None:
    found = read(tmp_path, "data_sizes: {sizes: [60, 100, 1000], updates: same, balanced: false}\n")
    assert [run.name for run in found.variants] == ["size=60", "size=100", "size=1000"]
    updates = [run.config.train.epochs * -(-size // 50) for run, size in zip(found.variants, (60, 100, 1000))]
    assert updates == [40, 40, 40]
    assert [run.config.train.evaluate_every for run in found.variants] == [10, 10, 1]
    assert DataSizes([10, 20]).at(DataSizePoint(10, True), {"train": {"batch_size": "full"}}) == {
        "train.subset": {"images": 10, "balanced": True}
    }


def test_both_kinds_of_updates_share_the_largest(tmp_path: Path) -> None:
    found = read(tmp_path, "runs: {a: {}}\ndata_sizes: {sizes: [50, 100, 500], updates: both}\n")
    names = ["a,size=50", "a,size=100", "a,size=500", "a,size=50,updates=same", "a,size=100,updates=same"]
    assert [run.name for run in found.variants] == names
    assert found.curves == [
        ("a", [(50, names[0]), (100, names[1]), (500, names[2])]),
        ("a, same updates", [(500, names[2]), (50, names[3]), (100, names[4])]),
    ]
    assert [run.config.train.epochs for run in found.variants] == [2, 2, 2, 20, 10]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data_sizes: {sizes: [100]}", "sizes.yaml:5: data_sizes.sizes: list should have at least 2 items"),
        ("data_sizes: {sizes: [100, 100]}", "data_sizes.sizes: list each size only once"),
        (
            "data_sizes: {sizes: [100, 0]}",
            "data_sizes.sizes.1: input should be greater than or equal to 1, got 0",
        ),
        (
            "data_sizes: {sizes: [1, 2], update: same}",
            "data_sizes.update: unknown key; did you mean 'updates'",
        ),
        ("runs: {a: {train.subset: {image: 3}}}", "unknown key; did you mean 'images'"),
        (
            "runs: {a: {train.subset: {images: 3}}}\ndata_sizes: {sizes: [9, 8]}",
            "sizes.yaml:5: runs.a.train.subset: data_sizes sets",
        ),
        (
            "data_sizes: {sizes: [9, 8], updates: same}\nruns: {a: {train.schedule: {step: {every: 2}}}}",
            "counts epochs",
        ),
        (
            "data_sizes: {sizes: [9, 8], updates: both}\nruns: {a: {estimator: knn}}",
            "data_sizes.updates: an estimator makes no updates",
        ),
        (
            "data_sizes: {sizes: [9, 8]}\nsweep: {space: {train.subset: [{images: 3}, {images: 4}]}}",
            "the data_sizes sets it",
        ),
    ],
)
def test_curves_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.slow
def test_a_study_of_sizes(tmp_path: Path) -> None:
    found = read(tmp_path, "runs: {a: {}}\ndata_sizes: {sizes: [30, 100, 300, 1077]}\nrepeats: 2\n")
    folder = pipeline.run(found, out=tmp_path / "runs")
    assert read_json(folder / "study.json")["curves"][0]["name"] == "a"
    page = (folder / "report.html").read_text()
    assert "Data size: accuracy against" in page
    assert "The errors follow size to the power" in page
    run = RunFolder(folder / "a,size=30" / "seed-1")
    again = data_of(run)
    assert len(again.train) == 30
    task = Task("sizes", "a,size=30", 1, found.variants[0].config, tmp_path, run.path)
    assert again.fingerprint == load_data(task).fingerprint
    other = data_of(RunFolder(folder / "a,size=30" / "seed-0"))
    assert rows(other) != rows(again)


def test_a_size_that_is_not_there(tmp_path: Path) -> None:
    found = read(tmp_path, "data_sizes: {sizes: [30, 5000]}\n")
    with pytest.raises(ConfigError, match=r"5000 training images was asked for; digits has"):
        pipeline.run(found, out=tmp_path / "runs")


def test_an_estimator_has_a_curve_too(tmp_path: Path) -> None:
    found = read(tmp_path, "runs: {a: {estimator: knn}}\ndata_sizes: {sizes: [100, 300]}\n")
    folder = pipeline.run(found, out=tmp_path / "runs")
    run = RunFolder(folder / "a,size=100" / "seed-0")
    assert len(data_of(run).train) == 100
    again = pipeline.run(study_file.read_study(run.config), out=tmp_path / "again")
    scores = [
        read_json(each / "a,size=100" / "seed-0" / "record.json")["scores"]["test"]["accuracy"]
        for each in (folder, again)
    ]
    assert scores[0] == scores[1]


def test_runs_without_a_curve_are_trained_on_all_there_is(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "data": "digits",
        "model": "linear",
        "train": {"epochs": 1},
        "runs": {"source": {}, "tuned": {"model.weights": {"run": "source"}}},
        "data_sizes": {"sizes": [50, 100], "runs": ["tuned"]},
    }
    expanded = study_file.expand_study(values, name="it", base=tmp_path)
    assert {
        run.name: run.config.train.subset and run.config.train.subset.images for run in expanded.variants
    } == {
        "source": None,
        "tuned,size=50": 50,
        "tuned,size=100": 100,
    }
    assert expanded.curves == [("tuned", [(50, "tuned,size=50"), (100, "tuned,size=100")])]
    values["data_sizes"]["runs"] = ["tund"]
    with pytest.raises(Problems) as caught:
        study_file.expand_study(values, name="it", base=tmp_path)
    assert (
        caught.value.problems[0].message
        == "no run is called 'tund'; did you mean 'tuned'? valid: source, tuned"
    )
