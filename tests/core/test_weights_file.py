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
from stresslens.core.weights_file import _plain_names, read_state

State = dict[str, Tensor]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2))


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def options(state: State) -> Any:
    return {"state_dict": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "epoch": 3}


def inside(part: str, state: State) -> State:
    """The state of a net whose first block is wrapped."""
    return {name.replace("0.", f"0.{part}.", 1): value for name, value in state.items()}


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "averaged": lambda s: AveragedModel(net()).state_dict() | under("module.", s),
    "data parallel": lambda s: under("module.", s),
    "compiled": lambda s: under("_orig_mod.", s),
    "compiled inside": lambda s: inside("_orig_mod", s),
    "checkpointed inside": lambda s: inside("_checkpoint_wrapped_module", s),
    "FSDP inside": lambda s: inside("_fsdp_wrapped_module", s),
    "FSDP of fairscale inside": lambda s: inside("_fpw_module", s),
    "data parallel inside": lambda s: inside("module", s),
    "Opacus": lambda s: under("_module.", s),
    "Opacus inside": lambda s: inside("_module", s),
    "Fabric": lambda s: {"model": under("_forward_module.", s)},
    "FSDP, checkpointed and compiled": lambda s: under(
        "_fsdp_wrapped_module.", inside("_fsdp_wrapped_module._checkpoint_wrapped_module._orig_mod", s)
    ),
    "Lightning, data parallel inside": lambda s: {"state_dict": under("model.", inside("module", s))},
    "data parallel twice": lambda s: under("module.", inside("module", s)),
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


@pytest.mark.breadth(20)
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


class OwnPart(nn.Module):
    """A net whose own layers are called like wrappers."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"module": nn.Linear(4, 3), "other": nn.Linear(3, 2)})


@pytest.mark.parametrize("part", ["", "_orig_mod.", "module."])
def test_a_net_may_have_a_part_called_like_a_wrapper(part: str) -> None:
    source, target = OwnPart(), OwnPart()
    given = {name.replace("block.", f"block.{part}"): v for name, v in source.state_dict().items()}
    load_into(target, _plain_names(given), "it", head=(), keep_head=True)
    assert all(torch.equal(v, source.state_dict()[name]) for name, v in target.state_dict().items())


def test_a_net_that_is_there_twice_keeps_both_names() -> None:
    """A module that holds itself compiled, too."""
    state = {
        "a.weight": torch.zeros(1),
        "a._orig_mod.weight": torch.ones(1),
        "b._orig_mod.weight": torch.ones(1),
    }
    assert set(_plain_names(state)) == {"a.weight", "a._orig_mod.weight", "b.weight"}
    assert set(_plain_names(dict(reversed(state.items())))) == {"a.weight", "a._orig_mod.weight", "b.weight"}
