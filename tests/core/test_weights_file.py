"""Weights are found in files of training loops and wrappers, and under the names that those put before
them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stresslens.core.errors import ConfigError
from stresslens.core.pretrained import load_into
from stresslens.core.weights_file import read_state

State = dict[str, Tensor]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2))


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def options(state: State) -> Any:
    return {"state_dict": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "epoch": 3}


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "averaged": lambda s: AveragedModel(net()).state_dict() | under("module.", s),
    "data parallel": lambda s: under("module.", s),
    "compiled": lambda s: under("_orig_mod.", s),
    "compiled inside": lambda s: {name.replace("0.", "0._orig_mod.", 1): v for name, v in s.items()},
    "data parallel and compiled": lambda s: under("module._orig_mod.", s),
    "Lightning": lambda s: {"state_dict": under("model.", s) | {"loss.weight": torch.ones(2)}, "loops": {}},
    "Lightning, data parallel": lambda s: {"state_dict": under("net.module.", s)},
    "timm": lambda s: {"state_dict": {n: 0 * v for n, v in s.items()}, "state_dict_ema": s, "arch": "x"},
    "moving average": lambda s: {"model": {n: 0 * v for n, v in s.items()}, "model_ema": under("module.", s)},
    **{
        f"moving average, {key}": lambda s, key=key: {"model": {n: 0 * v for n, v in s.items()}, key: s}
        for key in ("ema", "ema_state_dict", "model_ema_state_dict")
    },
    "moving average and a count": lambda s: {
        "model": {n: 0 * v for n, v in s.items()},
        "ema": {"module": s, "updates": 3},
    },
    "options of a moving average": lambda s: {"ema": {"decay": 0.9}, "model": s},
    "options and numbers": options,
    "tutorial": lambda s: {
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {}},
        "epoch": torch.tensor(1),
    },
    "another key": lambda s: {"student": under("backbone.", s), "epoch": 1},
}


@pytest.mark.parametrize("ending", ["pt", "pth", "ckpt"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_weights_are_loaded_from_any_wrapper(name: str, ending: str, tmp_path: Path) -> None:
    source, target = net(), net()
    torch.save(WRAPPERS[name](source.state_dict()), tmp_path / f"it.{ending}")
    report = load_into(target, read_state(tmp_path / f"it.{ending}"), "it", head=(), keep_head=True)
    assert all(torch.equal(v, source.state_dict()[name]) for name, v in target.state_dict().items())
    told = {"averaged": ("n_averaged",), "Lightning": ("loss.weight",)}
    assert report.left == told.get(name, ())
    assert all(left in report.said for left in report.left)


def test_safetensors_of_a_wrapper(tmp_path: Path) -> None:
    source, target = net(), net()
    safetensors.torch.save_file(under("model.", source.state_dict()), tmp_path / "it.safetensors")
    load_into(target, read_state(tmp_path / "it.safetensors"), "it", head=(), keep_head=True)
    assert torch.equal(target[1].weight, source[1].weight)


def test_several_nets_in_one_file_are_refused_by_name() -> None:
    state = net().state_dict()
    with pytest.raises(ConfigError, match=r"hold 2 such nets, under student\., teacher\.; save one"):
        load_into(net(), under("student.", state) | under("teacher.", state), "it", head=(), keep_head=True)
