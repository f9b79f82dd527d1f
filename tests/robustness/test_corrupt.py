"""Accuracy under corruption: recounted by hand, resumed after a kill, kept apart from training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stresslens.config import registry, study_file
from stresslens.config.schema import Corruptions
from stresslens.core.data import Data
from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.files import read_json
from stresslens.core.pass_memory import MEASURED
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.saved_model import open_model
from stresslens.robustness import corrupt
from stresslens.study import stages
from stresslens.training.task import Task

KINDS: list[Any] = ["noise", "contrast", {"noise": {"kind": "impulse"}}]


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_every_cell_is_the_share_answered_right(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    model, test = net().eval(), small.test
    found = corrupt.corrupt(tmp_path, model, test, KINDS, source="a", base=tmp_path)
    assert (found.n, found.split) == (60, "test")
    x, y = test.floats(test.images), test.labels
    shares = np.zeros(60)
    for each, value in zip(found.corruptions, KINDS):
        name = {"noise": "noise", "contrast": "contrast"}.get(str(value), "noise kind=impulse")
        for cell in each.severities:
            draws = Draws(mix(0, *name.encode()), torch.arange(60))
            spoiled = registry.resolve("corruptions", value)(x=x, draws=draws, severity=cell.severity)
            right = (model(spoiled).argmax(1) == y).numpy()
            assert cell.accuracy.value == pytest.approx(right.mean())
            assert (cell.accuracy.n, cell.accuracy.method) == (60, "Wilson")
            shares += right / 15
    assert found.mean is not None
    assert found.mean.value == pytest.approx(shares.mean())
    assert found.mean.low < shares.mean() < found.mean.high
    assert found.clean is not None
    assert found.clean.value == pytest.approx((model(x).argmax(1) == y).float().mean().item())
    kept = dict(np.load(tmp_path / "result.npz"))
    assert kept["right"].shape == (3, 5, 60)
    assert np.allclose(kept["right"].mean((0, 1)), shares)


def test_killed_between_passes_it_goes_on_and_finished_it_is_read(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    whole = corrupt.corrupt(tmp_path / "whole", net(), small.test, KINDS, source="a", base=tmp_path)

    def killing(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corrupt.corrupt(
            tmp_path / "cut", net(), small.test, KINDS, source="a", base=tmp_path, on_progress=killing
        )
    assert not (tmp_path / "cut" / "result.json").exists()
    passes = 0

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            nonlocal passes
            passes += len(x) > MEASURED  # without those that measure memory and count multiply-adds
            return self.net(x)  # type: ignore[no-any-return]

    resumed = corrupt.corrupt(tmp_path / "cut", Counting(), small.test, KINDS, source="a", base=tmp_path)
    assert passes == 16 - 7
    assert resumed.as_json() | {"cost": 0} == whole.as_json() | {"cost": 0}
    corrupt.corrupt(tmp_path / "cut", Counting(), small.test, KINDS, source="a", base=tmp_path)
    assert passes == 9
    corrupt.corrupt(tmp_path / "cut", Counting(), small.test, KINDS, source="another model", base=tmp_path)
    assert passes == 9 + 16


def test_an_earlier_result_stays_whole_until_the_next_is_finished(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    corrupt.corrupt(tmp_path, net(), small.test, KINDS, source="a", base=tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("result.json", "result.npz")]

    def killing(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corrupt.corrupt(tmp_path, net(), small.test, ["fog"], source="a", base=tmp_path, on_progress=killing)
    assert [(tmp_path / name).read_bytes() for name in ("result.json", "result.npz")] == before
    corrupt.corrupt(tmp_path, net(), small.test, ["fog"], source="a", base=tmp_path)
    assert np.load(tmp_path / "result.npz")["right"].shape == (1, 5, 60)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["result.json", "result.npz", "timings.json"]


def test_fewer_images_are_some_of_the_same(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    rights = {}
    for images in (20, 60):
        asked = Corruptions(KINDS, images=images)
        found = corrupt.corrupt(tmp_path / str(images), net(), small.test, asked, source="a", base=tmp_path)
        assert found.n == images
        arrays = dict(np.load(tmp_path / str(images) / "result.npz"))
        rights[images] = dict(zip(arrays["index"].tolist(), arrays["right"].transpose(2, 0, 1).tolist()))
    assert all(rights[60][place] == right for place, right in rights[20].items())


def test_as_a_stage_it_trains_nothing_anew(task_of: Callable[..., Task], tmp_path: Path) -> None:
    task = task_of("linear")
    stages.carry_out(task)
    stamp = (task.folder / "model.safetensors").stat().st_mtime_ns
    spoiled = replace(task, config=replace(task.config, corruptions=["blur", "fog"]))
    record = stages.carry_out(spoiled)
    assert (task.folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert (record.status, record.reads_of_test) == ("finished", 2)
    found = read_json(task.folder / "corruptions" / "result.json")
    assert [each["name"] for each in found["corruptions"]] == ["blur", "fog"]
    assert found["clean"]["value"] == pytest.approx(record.scores["test"]["accuracy"].value)
    assert open_model(RunFolder(task.folder)) is not None
    written = (task.folder / "corruptions" / "result.json").stat().st_mtime_ns
    assert stages.carry_out(spoiled).reads_of_test == 2
    assert (task.folder / "corruptions" / "result.json").stat().st_mtime_ns == written
    assert study_file.read_study(task.folder / "config.yaml").variants[0].config.corruptions == [
        "blur",
        "fog",
    ]


def test_a_study_names_its_corruptions_and_mistakes_are_told_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "corruptions: {kinds: [noise, {blur: {}}], images: 50}\nruns: {a: {}, b: {corruptions.images: 10}}\n"
    )
    runs = study_file.read_study(file).variants
    assert [run.config.corruptions for run in runs] == [
        Corruptions(["noise", {"blur": {}}], images=n) for n in (50, 10)
    ]
    file.write_text("corruptions:\n  - noise\n  - {fgo: {}}\n")
    with pytest.raises(ConfigError, match=r"study\.yaml:3: corruptions\.1: .*did you mean 'fog'"):
        study_file.read_study(file)
    with pytest.raises(Problems, match="corruptions"):
        study_file.variant_config_from({"corruptions": []}, tmp_path)


def test_own_corruptions_are_checked(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    (tmp_path / "own.py").write_text(
        "def dark(x):\n    return x - 1\n\n\ndef half(x, severity):\n    return x[..., ::2]\n"
    )
    with pytest.raises(
        ConfigError, match=r"corruption dark returned shape .*expected as many images in \[0, 1\]"
    ):
        corrupt.corrupt(tmp_path / "a", net(), small.test, ["own.py:dark"], source="a", base=tmp_path)
    with pytest.raises(ConfigError, match="corruption half returned shape"):
        corrupt.corrupt(tmp_path / "b", net(), small.test, ["own.py:half"], source="a", base=tmp_path)
    with pytest.raises(ConfigError, match="each kind of corruption once"):
        corrupt.corrupt(tmp_path / "c", net(), small.test, ["fog", {"fog": {}}], source="a", base=tmp_path)
