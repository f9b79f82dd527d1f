"""Test-time augmentation: the mean probabilities over views, redone by hand, and what a run tells of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresslens.config.schema import Evaluation
from stresslens.core.center_crop import CenterCrop
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.layers import Normalize, with_input_layers
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation import scores
from stresslens.evaluation.averaged_views import AveragedViews, score_averaged
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.saved_model import open_model
from stresslens.report.page import write_report
from stresslens.study import stages
from stresslens.study.preconditions import check_task
from stresslens.training.task import Task

Make = Callable[..., Task]


class Pixels(nn.Module):
    """Two logits: the upper left pixel, and the lower right one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 0, 0], x[:, 0, -1, -1]], 1)


def behind(crop: CenterCrop | None) -> nn.Sequential:
    return with_input_layers(Pixels(), Normalize.by_moments([0.0], [1.0]), None, "bilinear", crop)


def mean_of(pairs: list[tuple[float, float]]) -> Tensor:
    return torch.tensor(pairs).softmax(1).mean(0).log()


IMAGE = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])[None, None]


@pytest.mark.parametrize(
    ("views", "pairs"),
    [
        (["flip"], [(0.1, 0.9), (0.3, 0.7)]),
        (["vertical_flip"], [(0.1, 0.9), (0.7, 0.3)]),
        (["flip", "vertical_flip", "flip"], [(0.1, 0.9), (0.7, 0.3), (0.3, 0.7), (0.9, 0.1)]),
        (["quarter_turns"], [(0.1, 0.9), (0.3, 0.7), (0.9, 0.1), (0.7, 0.3)]),
    ],
    ids=str,
)
def test_probabilities_are_averaged(views: list[str], pairs: list[tuple[float, float]]) -> None:
    averaging = AveragedViews(behind(None), views, (1, 3, 3))
    assert averaging.passes == len(pairs)
    assert torch.allclose(averaging(IMAGE)[0], mean_of(pairs), atol=1e-6)


def test_five_crops_are_the_middle_and_the_corners() -> None:
    model = behind(CenterCrop((2, 2), (3, 3)))
    averaging = AveragedViews(model, ["five_crops"], (1, 3, 3))
    corners = [(0.1, 0.5), (0.2, 0.6), (0.4, 0.8), (0.5, 0.9)]
    middle = (0.1, 0.5)  # half a pixel is rounded down
    assert torch.allclose(averaging(IMAGE)[0], mean_of([middle, *corners]), atol=1e-6)
    assert AveragedViews(model, ["five_crops", "flip"], (1, 3, 3)).passes == 10


@pytest.mark.parametrize(
    ("views", "shape", "why"),
    [
        (["quarter_turns"], (1, 3, 4), "quarter_turns needs square images; they are 3×4"),
        (["five_crops"], (1, 3, 3), "five_crops needs a net that sees a part of the image"),
        (["flop"], (1, 3, 3), "no view is called 'flop'; did you mean 'flip'"),
    ],
    ids=str,
)
def test_views_that_cannot_be_are_refused(views: list[str], shape: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        AveragedViews(behind(None), views, shape)


def test_a_run_tells_the_gain_beside_the_image_alone(task_of: Make, tmp_path: Any) -> None:
    task = task_of({"mlp": {"widths": [16]}}, epochs=15, lr=0.01, augment=["flip"])
    plain = stages.carry_out(task)
    with_views = replace(task, config=replace(task.config, evaluation=Evaluation(tta=["flip"])))
    record = stages.carry_out(with_views)
    assert record.fingerprint == plain.fingerprint  # nothing was trained again
    assert record.scores == plain.scores
    assert record.reads_of_test == plain.reads_of_test + 1
    folder, data = RunFolder(task.folder), task.data
    assert record.averaged is not None
    assert data is not None
    assert data.test is not None
    assert (record.averaged.views, record.averaged.passes) == (["flip"], 2)
    model, x = open_model(folder), data.test.floats(data.test.images)
    expected = (model(x).softmax(1) + model(x.flip(-1)).softmax(1)) / 2
    found = np.load(folder.predictions("tta/test"))["scores"]
    assert torch.allclose(torch.from_numpy(found).exp(), expected, atol=1e-6)
    alone, right = (p.argmax(1) == data.test.labels for p in (model(x), expected))
    assert record.averaged.alone["test"] == record.scores["test"]["accuracy"]
    assert record.averaged.scores["test"]["accuracy"].value == pytest.approx(float(right.float().mean()))
    gain = record.averaged.gain["test"]
    assert gain.value == pytest.approx(float(right.float().mean() - alone.float().mean()))
    assert gain.low <= gain.value <= gain.high
    assert stages.carry_out(with_views).reads_of_test == record.reads_of_test  # is done
    page = write_report(task.folder.parents[1]).parent.rglob("*.html")
    assert any("averaged over 2 views" in each.read_text() for each in page)


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ({"views": ["quarter_turns"], "shape": (1, 8, 6)}, "quarter_turns needs square images; they are 8×6"),
        ({"views": ["five_crops"]}, "five_crops needs a net that sees a part"),
        ({"views": ["five_crops"], "estimator": "knn"}, "five_crops needs a net that sees a part"),
    ],
    ids=["turns", "crops", "an estimator"],
)
def test_views_that_cannot_be_are_refused_before_training(
    task_of: Make, task: dict[str, Any], why: str
) -> None:
    images = torch.randint(0, 256, (60, *task.get("shape", (1, 8, 8))), dtype=torch.uint8)
    made = task_of("linear", data=Data.from_arrays(images, torch.arange(60) % 3))
    config = replace(made.config, evaluation=Evaluation(tta=task["views"]), estimator=task.get("estimator"))
    with pytest.raises(ConfigError, match=why):
        check_task(replace(made, config=config))


def test_a_net_that_sees_a_part_may_have_five_crops(task_of: Make) -> None:
    made = task_of("linear", augment=[{"crop": {"size": 6}}])
    check_task(replace(made, config=replace(made.config, evaluation=Evaluation(tta=["five_crops"]))))


def test_saved_predictions_of_one_view_are_not_made_again(
    task_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of("linear", epochs=1)
    stages.carry_out(task)
    passed: list[tuple[str, int]] = []
    predict = scores.predictions_of

    def counted(model: nn.Module, split: Split) -> scores.Predictions:
        passed.append((type(model).__name__, len(split)))
        return predict(model, split)

    monkeypatch.setattr(scores, "predictions_of", counted)
    with_views = replace(task, config=replace(task.config, evaluation=Evaluation(tta=["flip"])))
    record = stages.carry_out(with_views)
    assert record.status == "finished"
    assert [name for name, _ in passed] == ["AveragedViews"] * 2  # validation and test
    passed.clear()
    with finished(RunFolder(task.folder), "train", data=task.data) as (model, data, found):
        score_averaged(RunFolder(task.folder), model, data, found, ["flip"], ["train"])
    assert [name for name, _ in passed] == ["Sequential", "AveragedViews"]  # of train none are saved


def test_a_view_that_fails_leaves_the_other_parts(task_of: Make) -> None:
    task = task_of("linear", epochs=1)
    config = replace(task.config, evaluation=Evaluation(tta=["five_crops"]))
    record = stages.carry_out(replace(task, config=config))
    assert record.status == "incomplete"
    assert "five_crops needs a net" in record.failures["evaluation"].message


@pytest.mark.slow
def test_evaluate_with_views_on_the_command_line(type_: Callable[..., tuple[int, str, str]]) -> None:
    assert type_("train", "digits", "linear", "train.epochs=1")[0] == 0
    (run,) = map(str, Path("runs/train").glob("*/seed-0"))
    code, out, err = type_("evaluate", run, "--tta", "flip", "--tta", "quarter_turns", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["tta"] == ["flip", "quarter_turns"]
    assert found["gain"]["n"] == 360
    code, out, err = type_("evaluate", run, "--tta", "flip", "--split", "validation")
    assert "test-time augmentation (flip; 2 passes): accuracy validation" in out
    code, out, err = type_("evaluate", run, "--tta", "five_crops")
    assert code == 2
    assert "five_crops needs a net" in err
