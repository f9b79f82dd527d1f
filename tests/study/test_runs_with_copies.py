"""Test images with a copy in train: noted in the record, scored apart, and left out of verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checked_data import photographs, with_images

import stresslens as sl
from stresslens.comparison.folders import compare_without_copies
from stresslens.config.study_file import expand_study
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json, write_json
from stresslens.evaluation.duplicates import copies_in_earlier_splits
from stresslens.report.page import write_report
from stresslens.study import pipeline

Type = Callable[..., tuple[int, str, str]]
COPIES = list(range(4, 44))


def test_positions_of_exact_and_near_copies() -> None:
    data = photographs()
    train = data.train.images[:]
    near = (train[[40, 41]].float() * 0.8 + 20).to(torch.uint8)
    data = with_images(data, "validation", [3, 4], torch.stack([train[30], near[0]]))
    test = torch.stack([train[30], near[0], near[1], near[1]])
    data = with_images(data, "test", [0, 5, 7, 9], test)
    assert copies_in_earlier_splits(data) == {"validation": [3, 4], "test": [0, 5, 7, 9]}
    assert copies_in_earlier_splits(photographs(seed=3)) == {}


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A study on pictures with random labels, of which the test images `COPIES` are training images."""
    data = photographs(800)
    train, own = data.train, list(range(50, 50 + len(COPIES)))
    data = with_images(data, "test", COPIES, train.images[own], train.labels[own])
    arrays: dict[str, Any] = {}
    for name, split in data.splits.items():
        arrays |= {f"{name}_images": split.images[:].numpy(), f"{name}_labels": split.labels.numpy()}
    arrays["val_images"], arrays["val_labels"] = (
        arrays.pop("validation_images"),
        arrays.pop("validation_labels"),
    )
    np.savez(tmp_path / "leaky.npz", **arrays)
    study = {
        "study": "leaky",
        "data": {"npz": {"path": str(tmp_path / "leaky.npz")}},
        "model": {"mlp": {"widths": [256]}},
        "train": {"threads": 1, "precision": "float32", "lr": 0.001, "select": "last"},
        "runs": {"memory": {"train.epochs": 40}, "untrained": {"train.epochs": 0}},
        "contrasts": {"training": {"pairs": [["untrained", "memory"]]}},
    }
    return pipeline.run(expand_study(study, name="leaky", base=tmp_path), out=tmp_path / "runs")


@pytest.mark.slow
def test_accuracy_without_the_copies_everywhere(leaky: Path, type_: Type) -> None:
    """A net that knows its training images by heart is right on their copies, and guesses the others."""
    run = leaky / "memory" / "seed-0"
    assert read_json(run / "record.json")["data"]["copies"] == {"test": COPIES}
    scores = sl.open(run).scores()
    clean = 160 - len(COPIES)
    assert (scores["accuracy_without_copies"].n, scores["accuracy_on_copies"].n) == (clean, len(COPIES))
    assert scores["accuracy_on_copies"].value > 0.8
    assert scores["accuracy_without_copies"].value < 0.5
    gain = scores["accuracy"].value - scores["accuracy_without_copies"].value
    assert scores["gain_from_copies"].value == pytest.approx(gain)
    assert scores["gain_from_copies"].low > 0
    said = f"{len(COPIES)} test images have a copy in an earlier split: accuracy without them"
    code, out, _ = type_("evaluate", str(run))
    assert code == 0
    assert said in " ".join(out.split())
    write_report(run)
    assert said in (run / "report.html").read_text(encoding="utf-8")

    found = compare_without_copies([leaky])
    assert found.comparison.recipes["memory"].n == clean
    assert found.changes is not None
    assert found.changes.sentences[1] == "0 of 1 verdicts survive without the copies."
    assert sl.compare(leaky, without_copies=True)["without_copies"]["dropped"] == len(COPIES)
    code, out, _ = type_("compare", str(leaky), "--without-copies")
    assert "40 test images with a copy in an earlier split are left out" in " ".join(out.split())
    assert type_("compare", str(leaky), "--without-copies", "--metric", "robust@0.1")[0] == 2


@pytest.mark.slow
def test_a_record_of_an_earlier_version(leaky: Path, type_: Type) -> None:
    """It says that there are copies, but not which; evaluating the run notes them."""
    for record in leaky.glob("*/seed-0/record.json"):
        values = read_json(record)
        del values["data"]["copies"]
        for score in ("accuracy_without_copies", "accuracy_on_copies", "gain_from_copies"):
            del values["scores"]["test"][score]
        write_json(record, values)
    write_report(leaky)
    with pytest.raises(ConfigError, match=r"stresslens evaluate .* notes them"):
        compare_without_copies([leaky])
    for run in leaky.glob("*/seed-0"):
        assert type_("evaluate", str(run))[0] == 0
        assert read_json(run / "record.json")["data"]["copies"] == {"test": COPIES}
    assert compare_without_copies([leaky]).comparison.recipes["memory"].n == 160 - len(COPIES)
