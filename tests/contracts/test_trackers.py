"""Every tracker: takes all that a run tells, again in a fresh folder, prints nothing, and draws no
random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stresslens.config import registry
from stresslens.core.tracking import (
    Embedding,
    Entry,
    Figure,
    Graph,
    Histograms,
    Outcome,
    Pictures,
    Scalars,
    Text,
)
from stresslens.training.tracking import histogram

CONFIG = {
    "study": "contract",
    "run": "a",
    "seed": 0,
    "model": "linear",
    "train": {"epochs": 2, "lr": 0.1, "augment": []},
}


def told() -> list[Entry]:
    """A run of two epochs, with one entry at least of each kind."""
    pixels = np.arange(4 * 8 * 6 * 3, dtype=np.uint8).reshape(4, 8, 6, 3)
    return [
        Text("settings", "| setting | value |\n|---|---|\n| train.lr | 0.1 |"),
        Scalars("step", 1, {"loss": 2.5, "lr": 0.1}),
        Scalars("epoch", 1, {"loss": 2.25, "validation/accuracy": 0.5}),
        Scalars("step", 1, {"validation/accuracy": 0.5}),
        Histograms(1, {"0.weight": histogram(torch.arange(10.0)), "0.bias": histogram(torch.ones(3))}),
        Scalars("step", 2, {"loss": 1.5, "lr": 0.1}),
        Scalars("epoch", 2, {"loss": 1.25, "validation/accuracy": 0.75}),
        Text("study", "A head.\n\nAnd <b>more</b>."),
        Graph(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval(), torch.zeros(1, 1, 8, 6)),
        Figure("confusion, validation", pixels[0]),
        Pictures("samples", pixels, tuple(f"class {k}, called a/b" for k in range(4))),
        Embedding(np.arange(8, dtype=np.float32).reshape(4, 2), ("a", "b", "a", "c"), pixels),
        Outcome(
            {"model": "linear", "train.lr": 0.1, "train.shuffle": True, "seed": 0},
            {"validation/accuracy": 0.75},
        ),
    ]


@pytest.mark.breadth(1)
@pytest.mark.parametrize("name", registry.names("trackers"))
def test_takes_all_that_a_run_tells(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / name
    folder.mkdir()
    entries = told()
    before = torch.get_rng_state()
    tracker = registry.resolve("trackers", name)(folder=folder, config=CONFIG)
    for entry in entries:
        tracker.log(entry)
    tracker.close()
    assert torch.get_rng_state().equal(before)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > 1000
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert capfd.readouterr() == ("", "")


def test_of_every_kind_of_entry_there_is_one() -> None:
    from typing import get_args

    assert {type(entry) for entry in told()} == set(get_args(Entry))
