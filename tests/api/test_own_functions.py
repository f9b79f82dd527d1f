"""Functions of the caller's own, given where a plug-in is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from finished_runs import OPTIONS, SMALL
from torch import Tensor, nn

import stresslens as sl
from stresslens.plugins import Ball, Finding, Maps, PictureFacts, sign


def doubled(logits: Tensor, y: Tensor) -> Tensor:
    return 2 * F.cross_entropy(logits, y)


def plain(parameters: Any, lr: float, *, momentum: float = 0.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr, momentum)


def sideways(model: nn.Module, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    return (x + torch.as_tensor(ball.eps).reshape(-1, 1, 1, 1)).clamp(0, 1)


def brightness(model: nn.Module, x: Tensor, y: Tensor) -> Maps:
    return Maps(x.mean(1), signed=False, unit="brightness")


def test_train_takes_a_loss_and_an_optimizer(tmp_path: Path) -> None:
    def local(logits: Tensor, y: Tensor) -> Tensor:
        return 2 * F.cross_entropy(logits, y)

    options = {**OPTIONS, "optimizer": {plain: {"momentum": 0.9}}, "out": tmp_path}
    run = sl.train("linear", SMALL, loss=local, **options)
    assert sl.train("linear", SMALL, loss=local, **options).folder == run.folder
    (copy,) = (path for path in (run.folder / "plugins").iterdir() if path.name.startswith("local"))
    assert run.config["train"]["loss"] == f"plugins/{copy.name}:local"
    repeated = sl.run(run.folder / "config.yaml", out=tmp_path / "again")
    assert repeated.runs[0].history[-1]["loss"] == run.history[-1]["loss"]
    module = sl.train("linear", SMALL, loss=doubled, **options)
    assert module.history[-1]["loss"] == run.history[-1]["loss"]


def test_a_study_takes_functions(tmp_path: Path) -> None:
    values = {"data": SMALL, "model": "linear", "train": OPTIONS}
    study = sl.run({**values, "grid": {"train.loss": [doubled, "cross_entropy"]}}, out=tmp_path)
    first, second = sorted(run.history[0]["loss"] for run in study.runs)
    assert second > 1.5 * first


def test_attack_and_explain_take_functions(tmp_path: Path) -> None:
    run = sl.train("linear", SMALL, out=tmp_path, **OPTIONS)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    found = sl.attack(run, radii=[0.1], n_images=8, protocol=[sideways], audit=False)
    assert len(found.minimal_radius) == 8
    x, y = torch.rand(4, 1, 8, 8), [0, 1, 2, 3]
    given = sl.attack(net, x, y, radii=[0.1], protocol=[sideways], audit=False)
    assert len(given.minimal_radius) == 4
    why = sl.explain(run, x, brightness)
    assert torch.allclose(torch.as_tensor(why.maps), x[:, 0].float(), atol=1e-6)
    assert sl.explain(run, explainer=brightness).maps.shape[1:] == (8, 8)


def test_a_function_as_a_check_of_the_data() -> None:
    def too_red(pictures: PictureFacts, *, most: float = 0.8) -> Finding:
        red = int((pictures.measures.colour[:, 0] > most).sum())
        return sign(
            "too red", f"{red} of {len(pictures.labels)} images", len(pictures.labels), "look at them"
        )

    found = sl.check_data("digits", checks=[{too_red: {"most": 0.25}}, "tiny_classes"], progress=False)
    assert [finding.audit for finding in found] == ["too red", "tiny classes"]
    assert found[0].evidence.endswith("of 1797 images")
    assert 0 < int(found[0].evidence.split()[0]) < 1797
