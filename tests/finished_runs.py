"""Finished runs on a few digits, for the tests of the public functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

import stresslens as sl

SMALL = {"digits": {"subset": 100}}
OPTIONS: dict[str, Any] = {"epochs": 1, "lr": 0.01, "precision": "float32"}


class Finished(NamedTuple):
    """What a public function may be given."""

    run: sl.Run
    estimator: sl.Run
    own: sl.Run
    net: nn.Module
    study: sl.Study
    single: sl.Study


def finished_runs(out: Path) -> Finished:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    values = {"data": SMALL, "model": "linear", "train": OPTIONS}
    return Finished(
        sl.train("linear", SMALL, out=out / "python", **OPTIONS),
        sl.train("knn", SMALL, out=out / "python"),
        sl.train(net, SMALL, out=out / "python", **OPTIONS),
        net,
        sl.run({**values, "study": "two", "runs": {"a": {}, "b": {"train.lr": 0.1}}}, out=out),
        sl.run({**values, "study": "one"}, out=out),
    )
