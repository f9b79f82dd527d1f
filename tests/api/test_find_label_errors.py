"""`sl.find_label_errors`: of arrays, of a folder of runs, with an own module, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.core.errors import ConfigError, Notice


def wrong(small: sl.Data) -> sl.Data:
    labels = small.train.labels.clone()
    labels[[8, 40]] = torch.tensor([3, 8])
    return replace(small, train=replace(small.train, labels=labels))


def test_of_data(small: sl.Data) -> None:
    told: list[tuple[str, float, float]] = []
    found = sl.find_label_errors(
        wrong(small), "knn", folds=3, seeds=1, progress=lambda *facts: told.append(facts)
    )
    assert "train[40]" in {error.image for error in found.errors}
    assert len(found.planted) == 2
    assert told[-1] == ("out-of-fold probabilities of small digits, trainings", 9, 9)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    found = sl.find_label_errors(wrong(small), module, folds=2, seeds=1, flips=0, epochs=2, threads=1)
    assert "1 model of Sequential (2 folds, 1 seed)" in found.sentences[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"folds": 1}, "folds is 1; expected a whole number from 2 up"),
        ({"seeds": 0}, "seeds is 0; expected a whole number from 1 up"),
        ({"n_images": "all"}, "n_images is 'all'; expected a whole number from 2 up"),
        ({"flips": 2}, r"flips is 2; expected a share from 0 to 0\.25"),
        ({"model": 3}, "model is an int; expected a plug-in by name"),
        ({"model": nn.Linear}, r"make a module of it: Linear\(…\)"),
        ({"model": "knn", "epochs": 3}, "epochs means nothing to the estimator 'knn'"),
        ({"epoch": 3}, "epoch"),
        ({"model": "knn", "folds": 100}, "take fewer folds"),
    ],
    ids=str,
)
def test_what_it_refuses(small: sl.Data, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(sl.StresslensError, match=said):
        sl.find_label_errors(small, **arguments)


def test_a_run_takes_no_options(small: sl.Data, tmp_path: Path) -> None:
    run = sl.train("knn", small, out=tmp_path)
    found = sl.find_label_errors(run)
    assert found.images == 120
    with pytest.raises(ConfigError, match=r"folds: .* is trained already"):
        sl.find_label_errors(run, folds=3)


@pytest.mark.slow
def test_a_run_of_a_fold_is_searched_as_its_folder(tmp_path: Path) -> None:
    """The data of a run are divided anew for its fold; its images are found among the undivided ones."""
    data = {"digits": {"subset": 200, "test": 100, "validation": 0.1}}
    with pytest.warns(Notice, match="divided anew"):
        study = sl.run({"data": data, "estimator": "knn", "repeats": {"folds": 2}}, out=tmp_path)
    run = study.runs[1]
    assert sl.find_label_errors(run) == sl.find_label_errors(run.folder)
    assert sl.find_label_errors(study[run.variant]).errors == sl.find_label_errors(study).errors
