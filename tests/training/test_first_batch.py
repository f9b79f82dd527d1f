"""The smallest batch of an epoch is tried before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.core.errors import ConfigError


def data(images: int, size: int = 8) -> sl.Data:
    x = torch.rand(images, 1, size, size, generator=torch.Generator().manual_seed(0))
    return sl.Data.from_arrays(x, torch.arange(images) % 2, classes=["a", "b"], validation=0, test=0)


def net(*norms: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), *norms, nn.Flatten(), nn.Linear(4, 2)
    )


class Frozen(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> Any:
        return super().train(False)


@pytest.mark.breadth(2)
@pytest.mark.parametrize(("images", "batch_size", "larger"), [(9, 8, 9), (9, 1, 3), (13, 3, 5), (5, 2, 3)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norm_of_a_single_value_is_refused_with_the_ways_out(
    images: int, batch_size: int, larger: int, accumulate: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "accumulate": accumulate, "epochs": 1}
    says = (
        rf"Sequential cannot train on a batch of one image, which {images} images in batches of {batch_size} "
        rf"leave.*batch_size to {larger}, .*'batch_norm': 'keep'"
    )
    with pytest.raises(ConfigError, match=says):
        sl.train(net(nn.BatchNorm2d(4)), data(images), out=tmp_path, **options)
    sl.train(net(nn.BatchNorm2d(4)), data(images), out=tmp_path, **options | {"batch_size": larger})


@pytest.mark.parametrize(
    ("norm", "options"),
    [
        (nn.BatchNorm2d(4), {"fine_tune": {"batch_norm": "keep"}}),
        (nn.BatchNorm2d(4), {"fine_tune": {"layers": "head"}}),
        (Frozen(4), {}),
        (nn.GroupNorm(2, 4), {}),
    ],
    ids=["kept", "frozen", "own frozen", "group norm"],
)
def test_other_norms_are_trained_on_one_image(norm: nn.Module, options: Any, tmp_path: Path) -> None:
    run = sl.train(net(norm), data(9), epochs=1, batch_size=8, out=tmp_path, **options)
    assert run.record["training"]["steps"] == 2


def test_maps_of_several_pixels_are_trained_on_one_image(tmp_path: Path) -> None:
    made = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    sl.train(made, data(9), epochs=1, batch_size=8, out=tmp_path)


def test_gradual_unfreezing_counts_what_is_trained_at_the_end(tmp_path: Path) -> None:
    tune = {"layers": "gradual"}
    with pytest.raises(ConfigError, match="batch of one image"):
        sl.train(net(nn.BatchNorm2d(4)), data(9), epochs=3, batch_size=8, out=tmp_path, fine_tune=tune)


def test_a_net_that_fails_in_training_mode_is_refused_in_words(tmp_path: Path) -> None:
    class Fails(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise KeyError("needs labels")
            return super().forward(x.flatten(1))

    with pytest.raises(
        ConfigError, match=r"Fails cannot be trained: in training mode, for 2 images, .*needs labels"
    ):
        sl.train(Fails(64, 2), data(9), epochs=1, out=tmp_path)
    assert not list(tmp_path.rglob("checkpoint*"))
