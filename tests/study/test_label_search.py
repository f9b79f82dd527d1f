"""Planted wrong labels are found by models that are trained for it and by the runs of a study, groups stay
whole, and a search that was made before trains nothing."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stresslens.config.study_file import expand_study
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError, Stopped
from stresslens.core.splits import image_names, pooled
from stresslens.evaluation.scores import Predictions
from stresslens.study import out_of_fold, pipeline
from stresslens.study.label_search import FoldModel, fold_model, search_labels, search_runs
from stresslens.study.out_of_fold import out_of_fold_probabilities
from stresslens.training.loop import Training

WRONG = {8: 3, 40: 8, 77: 1}
"""Labels that are wrong from here on, by their places among the training images of the small digits."""


def mislabelled(small: Data) -> Data:
    labels = small.train.labels.clone()
    for row, label in WRONG.items():
        assert labels[row] != label
        labels[row] = label
    return replace(small, train=replace(small.train, labels=labels))


@pytest.mark.slow
def test_wrong_labels_are_found_with_their_right_ones(small: Data) -> None:
    found = search_labels(mislabelled(small), fold_model("digits", "knn"), folds=4, seeds=2)
    said = {error.image: error for error in found.errors}
    for row in WRONG:
        error = said[f"train[{row}]"]
        assert error.given == str(WRONG[row])
        assert error.suggested == str(int(small.train.labels[row]))
        assert 1 <= error.agreeing <= error.seeds == 2
    assert len(found) <= 5
    assert (found.images, found.seeds, found.models) == (240, 2, "2 models of knn (4 folds, 2 seeds)")
    assert found.accuracy.value > 0.9
    assert [flips.kind for flips in found.planted] == ["uniform", "confused pairs"]
    assert all(flips.planted == 10 and flips.found >= 5 for flips in found.planted)
    image = small.train.floats(small.train.images[77:78])[0, 0]
    pixels = found.pixels([said["train[77]"]])[0]
    assert (pixels == (255 * image).round().numpy()).all()


def test_nothing_is_measured_without_flips_and_some_images_may_be_looked_at(small: Data) -> None:
    found = search_labels(small, fold_model("digits", "knn"), folds=2, seeds=1, flips=0, images=100)
    assert found.images == 100
    assert found.planted == ()
    assert "was not measured" in found.sentences[-1]


@pytest.mark.parametrize("own", [False, True], ids=["linear", "own module"])
def test_nets_are_trained_and_a_second_search_trains_nothing(
    small: Data, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fold_model("digits", "linear", ["train.epochs=8", "train.threads=1", "train.lr=0.05"])
    if own:
        torch.manual_seed(1)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        model = FoldModel(model.config, "linear", module)
    first = search_labels(mislabelled(small), model, folds=3, seeds=1, flips=0)
    assert {f"train[{row}]" for row in WRONG} <= {error.image for error in first.errors}

    def refuse(*_: Any) -> None:
        raise AssertionError("a model is trained again")

    monkeypatch.setattr(out_of_fold, "_trained", refuse)
    assert search_labels(mislabelled(small), model, folds=3, seeds=1, flips=0) == first
    with pytest.raises(AssertionError, match="trained again"):
        search_labels(small, model, folds=3, seeds=1, flips=0)


def test_a_stopped_search_says_so_and_repeats_one_training(
    small: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fold_model("digits", "linear", ["train.epochs=2", "train.threads=1", "train.lr=0.011"])
    after_step, fit = Training.after_step, out_of_fold._trained
    begun = []

    def stopped_in_the_second(task: Any, data: Data) -> np.ndarray:
        begun.append(data)
        return fit(task, data)

    def raise_signal(self: Training) -> None:
        if len(begun) == 2:
            signal.raise_signal(signal.SIGTERM)
        after_step(self)

    monkeypatch.setattr(out_of_fold, "_trained", stopped_in_the_second)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "after_step", raise_signal)
        with pytest.raises(Stopped, match="stopped by SIGTERM; the same command repeats this training"):
            search_labels(small, model, folds=3, seeds=1, flips=0)
    search_labels(small, model, folds=3, seeds=1, flips=0)
    assert len(begun) == 2 + 2


def test_groups_stay_whole(small: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part never has an image of a group that its model was trained on."""
    groups = np.arange(240) // 3
    whole = replace(pooled(small), columns={"group": groups}, labels=torch.from_numpy(groups % 10))
    seen = []

    def note(task: Any, data: Data) -> np.ndarray:
        assert data.test is not None
        seen.append([set(split.columns["group"].tolist()) for split in (data.train, data.test)])
        return np.zeros((len(data.test), 10))

    monkeypatch.setattr(out_of_fold, "_trained", note)
    out_of_fold_probabilities(whole, small.classes, fold_model("digits", "knn"), folds=4, seeds=2)
    assert len(seen) == 8
    assert all(train.isdisjoint(test) for train, test in seen)
    assert all(set().union(*(test for _, test in seen[k : k + 4])) == set(range(80)) for k in (0, 4))


def test_a_class_that_is_too_small_is_named_with_the_way_out(small: Data) -> None:
    few = replace(small, train=small.train.select(torch.arange(2, 120)))
    with pytest.raises(DataError, match=r"cannot divide into 50 parts .* has \d+ images; take fewer folds"):
        search_labels(few, fold_model("digits", "knn"), folds=50)
    with pytest.raises(ConfigError, match=r"train\.epoch=1: .*epochs"):
        fold_model("digits", "linear", ["train.epoch=1"])


STUDY: dict[str, Any] = {
    "study": "folds",
    "data": {"digits": {"subset": 200, "test": 100, "validation": 0.1}},
    "estimator": "knn",
}


def carried_out(out: Path, repeats: Any, runs: Sequence[str] = ("run",), **keys: Any) -> Path:
    values = {**STUDY, **keys, "repeats": repeats, "runs": {name: {} for name in runs}}
    return pipeline.run(expand_study(values, name="folds", base=out), out=out)


@pytest.mark.slow
def test_a_study_with_folds_is_read(tmp_path: Path) -> None:
    """All images of the data set, each judged by the run that did not train on it."""
    folder = carried_out(tmp_path, {"folds": 3, "times": 2})
    found = search_runs(folder)
    data = out_of_study()
    assert found.images == len(pooled(data))
    assert (found.seeds, len(found.classes)) == (2, 10)
    assert {error.image for error in found.errors} <= set(image_names(data))
    assert "needs new trainings" in found.sentences[-1]
    rights = [
        Predictions.of_arrays(dict(np.load(path))).accuracy
        for path in sorted(folder.glob("run/seed-*/predictions/test.npz"))
    ]
    mean = sum(each.value * each.n for each in rights) / sum(each.n for each in rights)
    assert found.accuracy.value == pytest.approx(mean, abs=0.02)
    one = search_runs(folder / "run" / "seed-4")
    assert (one.images, one.seeds) == (rights[4].n, 1)


def out_of_study() -> Data:
    from stresslens.plugins.datasets.digits import digits

    return digits(subset=200, test=100, validation=0.1)


def test_a_run_without_folds_judges_its_held_out_images(tmp_path: Path) -> None:
    folder = carried_out(tmp_path, [0, 1])
    found, data = search_runs(folder / "run"), out_of_study()
    assert data.validation is not None
    assert (found.images, found.seeds) == (len(data.validation) + 100, 2)
    assert not any(error.image.startswith("train") for error in found.errors)


@pytest.mark.slow
def test_several_variants_and_other_labels_are_refused(tmp_path: Path) -> None:
    folder = carried_out(tmp_path, [0], runs=("a", "b"))
    with pytest.raises(ConfigError, match="has the variants a, b; give the folder of one"):
        search_runs(folder)
    shutil.rmtree(folder / "b")
    both = tmp_path / "both"
    for study in ("first", "second"):
        shutil.copytree(folder, both / study)
    with pytest.raises(ConfigError, match="has the variants first/a, second/a; give the folder of one"):
        search_runs(both)
    other = out_of_study()
    assert other.test is not None
    for test in (
        replace(other.test, labels=other.test.labels.roll(1)),
        other.test.select(torch.arange(50)),
    ):
        with pytest.raises(ConfigError, match="the labels of the data set have changed"):
            search_runs(folder / "a", data=replace(other, test=test))
