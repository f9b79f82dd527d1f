"""Two operators that are one function are told from two functions, by what a training records."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from torch import nn

from stresslens.comparison.schema import ComparisonFile
from stresslens.comparison.tested_run import same_function
from stresslens.config import study_file
from stresslens.core.layer_table import layer_table
from stresslens.evaluation.record import RunRecord, TrainingRecord
from stresslens.plugins.models._unfold import UnfoldConv2d
from stresslens.study import pipeline

SHAPE = (1, 8, 8)


def record(*layers: nn.Module, loss: float | None = 2.3) -> RunRecord:
    table = layer_table(nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3)), SHAPE)
    return RunRecord(status="finished", layers=table, training=TrainingRecord(first_loss=loss))


@cache
def library() -> RunRecord:
    return record(nn.Conv2d(1, 4, 3, padding=1))


OTHERS: dict[str, tuple[Callable[[], RunRecord], bool]] = {
    "our operator": (lambda: record(UnfoldConv2d(1, 4, 3, padding=1), loss=2.3000001), True),
    "itself": (library, False),
    "another loss": (lambda: record(UnfoldConv2d(1, 4, 3, padding=1), loss=2.31), False),
    "another kernel": (lambda: record(UnfoldConv2d(1, 4, 5, padding=2)), False),
    "a layer more": (lambda: record(UnfoldConv2d(1, 4, 3, padding=1), nn.ReLU()), False),
    "a loss that is not known": (lambda: record(UnfoldConv2d(1, 4, 3, padding=1), loss=None), False),
    "an estimator": (lambda: RunRecord(status="finished"), False),
}


@pytest.mark.parametrize("which", OTHERS)
def test_only_layers_of_other_types_with_the_same_loss_are_one_function(which: str) -> None:
    make, same = OTHERS[which]
    other = make()
    assert same_function(library(), other) is same
    assert same_function(other, library()) is same


@pytest.mark.slow
def test_the_verdict_says_it_of_trained_runs(tmp_path: Path) -> None:
    """And not of a pair that differs in the optimizer."""
    (tmp_path / "operators.yaml").write_text(
        "data: {digits: {subset: 100}}\n"
        "model: {simple_net: {channels: 2}}\n"
        "train: {epochs: 1, precision: float32, threads: 1, memory_format: contiguous}\n"
        "runs: {library: {}, own: {model.conv: unfold}, sgd: {train.optimizer: sgd}}\n"
    )
    folder = pipeline.run(study_file.read_study(tmp_path / "operators.yaml"), out=tmp_path)
    text = (folder / "report.html").read_text()
    assert text.count("from equal weights both networks compute the same, up to rounding") > 0
    said = {
        c.b: "up to rounding" in c.verdict for c in ComparisonFile.read(folder / "comparison.json").contrasts
    }
    assert said == {"own": True, "sgd": False}
