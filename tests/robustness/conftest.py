"""What the tests of the engine share: a small trained model, images, and no measuring of how to steer."""

from __future__ import annotations

import pytest
import torch
from attacking_plainly import plainly
from torch import Tensor

import stresslens as sl
from stresslens.config import registry
from stresslens.robustness import measure


@pytest.fixture(autouse=True)
def _steered_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "autotune_attack", plainly)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    torch.set_num_threads(1)
    return sl.train(
        {"simple_cnn": {"channels": 4, "hidden": 16}},
        "digits",
        epochs=8,
        lr=0.01,
        out=tmp_path_factory.mktemp("runs"),
        threads=1,
        precision="float32",
    )


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    data = registry.resolve("datasets", "digits")()
    return data.test.floats(data.test.images[:96]), data.test.labels[:96]
