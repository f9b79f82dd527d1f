"""Every public function gives the same under whatever torch settings it is called, and leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from module_state import data, images
from torch import nn

import stresslens as sl


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float64 by default": default_dtype,
    "another device by default": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def state() -> list[Any]:
    return [
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    ]


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).eval()


def asked(model: nn.Module, given: sl.Data, x: torch.Tensor, out: Path) -> list[Any]:
    y = torch.from_numpy(np.arange(len(x)) % 3)
    options: dict[str, Any] = {"precision": "float32", "threads": 1, "memory_format": "contiguous"}
    run = sl.train(model, given, epochs=1, out=out, **options)
    found = sl.attack(model, x, y, radii=[0.02, 0.1], protocol=["fgsm"], audit=False)
    return [
        [p.detach().numpy() for p in run.model().parameters()],
        [np.asarray(found.minimal_radius)],
        [sl.explain(model, x, "saliency").maps],
        [np.array(sl.evaluate(model, x, y)["accuracy"].value), sl.predict(model, x)],
        [np.array(sl.verify(model, x, x, y, eps=0.1).clean.value)],
    ]


@pytest.mark.breadth(1)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_the_caller_change_nothing_and_stay(name: str, tmp_path: Path) -> None:
    model, given, x = net(), data(), images()
    expected = asked(model, given, x, tmp_path / "plain")
    with SETTINGS[name]():
        before = state()
        if name == "inference mode":
            model, x = net(), x.clone()  # whose tensors take no part in gradients
        found = asked(model, given, x, tmp_path / "set")
        assert state() == before
    for one, other in zip(expected, found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
