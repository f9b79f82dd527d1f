"""What a model of other software may return, and how images are laid out for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from foreign_models import images

from stresslens.core.errors import ConfigError
from stresslens.core.foreign_model import ForeignModel


def test_one_column_of_two_classes_and_labels() -> None:
    x = images(4)
    score = np.array([-1.0, 0.5, 2.0, np.nan], np.float32)
    found = ForeignModel(lambda sent: score, "it", classes=2)(x)
    assert found[:3].tolist() == [[0, -1], [0, 0.5], [0, 2]]
    chance = ForeignModel(
        lambda sent: np.array([[0.25], [1], [0], [0.5]]), "it", classes=2, output="probabilities"
    )
    assert torch.allclose(
        chance(x).exp(), torch.tensor([[0.75, 0.25], [0, 1], [1, 0], [0.5, 0.5]]), atol=1e-6
    )
    assert chance(x).isfinite().all()
    labels = ForeignModel(lambda sent: [2, 0, 1, 2], "it", classes=3, output="labels")
    assert labels(x).argmax(1).tolist() == [2, 0, 1, 2]
    for wrong in ([3, 0, 0, 0], [0.5, 0, 0, 0], [-1, 0, 0, 0]):
        with pytest.raises(ConfigError, match="which is no class from 0 to 2"):
            ForeignModel(lambda sent, wrong=wrong: wrong, "it", classes=3, output="labels")(x)  # type: ignore[misc]
    sure, half = [1.5, -0.5], [0.5, 0.5]
    for rows, told in (
        ([half, [1, 1], half, half], "rows that add up to 2, and these are no probabilities"),
        ([half, half, half, sure], r"returned -0\.5, which is no probability"),
    ):
        model = ForeignModel(lambda sent, rows=rows: np.array(rows), "it", output="probabilities")  # type: ignore[misc]
        with pytest.raises(ConfigError, match=told):
            model(x)
    with pytest.raises(ConfigError, match=r"returned shape \(3, 2\) for 4 images"):
        ForeignModel(lambda sent: np.ones((3, 2)), "it")(x)
    with pytest.raises(ConfigError, match="returned no numbers"):
        ForeignModel(lambda sent: [None, "a"], "it")(x)


def test_layouts_are_the_same_numbers() -> None:
    x = images(2)
    seen: dict[str, np.ndarray] = {}
    for layout in ("nchw", "nhwc", "flat"):

        def keep(sent: np.ndarray, layout: str = layout) -> np.ndarray:
            seen[layout] = sent
            return np.zeros((2, 3))

        ForeignModel(keep, "it", layout=layout, bgr=True)(x)  # type: ignore[arg-type]
    assert np.array_equal(seen["nchw"], x.flip(1).numpy())
    assert np.array_equal(seen["nhwc"], x.flip(1).permute(0, 2, 3, 1).numpy())
    assert np.array_equal(seen["flat"], x.flip(1).flatten(1).numpy())
