"""The residual networks of RobustBench: its tensor names, its checkpoints, and the functions that they
compute, written out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from finished_runs import SMALL
from torch import Tensor, nn

import stresslens as sl
from stresslens.config import registry
from stresslens.core.errors import ConfigError

UNTRAINED: dict[str, Any] = {"epochs": 0, "precision": "float32", "threads": 1}
NAMES_OF_WIDE = {"conv1.weight", "bn1.weight", "fc.weight", "fc.bias", "block1.layer.0.bn1.running_mean"}
NAMES_OF_WIDE |= {"block2.layer.0.convShortcut.weight", "block3.layer.1.conv2.weight"}
NAMES_OF_PREACT = {"conv1.weight", "bn.weight", "linear.weight", "layer1.0.bn1.weight"}
NAMES_OF_PREACT |= {"layer2.0.shortcut.0.weight", "layer4.1.conv2.weight"}


def net(value: dict[str, Any], channels: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = registry.resolve("models", value)(shape=(channels, 8, 8), classes=10)
        for name, buffer in made.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + ("var" in name))
    return made.eval()


def normed(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    kept = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    return F.relu(F.batch_norm(x, *kept))


def wide(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for group in (1, 2, 3):
        for k in range(blocks):
            at, stride = f"block{group}.layer.{k}", 2 if group > 1 and k == 0 else 1
            active = normed(state, f"{at}.bn1", x)
            out = F.conv2d(active, state[f"{at}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(normed(state, f"{at}.bn2", out), state[f"{at}.conv2.weight"], padding=1)
            if f"{at}.convShortcut.weight" in state:
                x = F.conv2d(active, state[f"{at}.convShortcut.weight"], stride=stride)
            x = x + out
    x = normed(state, "bn1", x)
    return F.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1), state["fc.weight"], state["fc.bias"])


def preact(state: dict[str, Tensor], x: Tensor, of_input: bool) -> Tensor:
    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for group in (1, 2, 3, 4):
        for k in (0, 1):
            at, stride = f"layer{group}.{k}", 2 if group > 1 and k == 0 else 1
            active = normed(state, f"{at}.bn1", x)
            out = F.conv2d(active, state[f"{at}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(normed(state, f"{at}.bn2", out), state[f"{at}.conv2.weight"], padding=1)
            if f"{at}.shortcut.0.weight" in state:
                x = F.conv2d(x if of_input else active, state[f"{at}.shortcut.0.weight"], stride=stride)
            x = x + out
    x = normed(state, "bn", x) if "bn.weight" in state else x
    return F.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1), state["linear.weight"], state["linear.bias"])


def test_wide_resnet_computes_what_its_names_say() -> None:
    made = net({"wide_resnet": {"depth": 16, "widen": 1}})
    state = made.state_dict()
    assert state.keys() >= NAMES_OF_WIDE
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(made(x), wide(state, x, 2), atol=1e-5)


@pytest.mark.parametrize("of_input", [False, True])
@pytest.mark.parametrize("last_norm", [False, True])
def test_preact_resnet_computes_what_its_names_say(of_input: bool, last_norm: bool) -> None:
    shortcut = "input" if of_input else "active"
    made = net({"preact_resnet": {"width": 4, "shortcut": shortcut, "last_norm": last_norm}})
    state = made.state_dict()
    assert NAMES_OF_PREACT - {"bn.weight"} <= state.keys()
    assert ("bn.weight" in state) == last_norm
    x = torch.rand(2, 3, 8, 8)
    assert torch.allclose(made(x), preact(state, x, of_input), atol=1e-5)


def test_the_published_sizes() -> None:
    values: list[dict[str, Any]] = [
        {"wide_resnet": {}},
        {"wide_resnet": {"depth": 34}},
        {"preact_resnet": {}},
    ]
    with torch.device("meta"):
        nets = [registry.resolve("models", value)(shape=(3, 32, 32), classes=10) for value in values]
    counts = [sum(parameter.numel() for parameter in each.parameters()) for each in nets]
    assert counts == [36_479_194, 46_160_474, 11_172_170]


def test_a_depth_that_no_wide_resnet_has() -> None:
    with pytest.raises(ValueError, match="depth 18: expected 4 more than a multiple of 6"):
        registry.resolve("models", {"wide_resnet": {"depth": 18}})(shape=(3, 32, 32), classes=10)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model", "net", "module."])
def test_a_checkpoint_in_each_wrapping(wrapped: str, tmp_path: Path) -> None:
    value = {"depth": 10, "widen": 1}
    made = net({"wide_resnet": value}, channels=1)
    state: Any = made.state_dict()
    if wrapped == "module.":
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    elif wrapped != "plain":
        state = {wrapped: state, "epoch": 3}
    torch.save(state, tmp_path / "weights.pt")
    model = {"wide_resnet": {**value, "weights": {"file": str(tmp_path / "weights.pt")}}}
    run = sl.train(model, SMALL, out=tmp_path, **UNTRAINED)
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(run.model()(x), made(x), atol=1e-5)


def test_the_normalisation_of_the_checkpoint(tmp_path: Path) -> None:
    value = {"depth": 10, "widen": 1}
    made = net({"wide_resnet": value}, channels=1)
    torch.save(made.state_dict(), tmp_path / "weights.pt")
    given = {**value, "mean": [0.3], "std": [0.2], "weights": {"file": str(tmp_path / "weights.pt")}}
    run = sl.train({"wide_resnet": given}, SMALL, out=tmp_path, **UNTRAINED)
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(run.model()(x), made((x - 0.3) / 0.2), atol=1e-4)


@pytest.mark.slow
def test_a_normalisation_in_the_checkpoint_must_be_given(tmp_path: Path) -> None:
    value = {"depth": 10, "widen": 1}
    state = net({"wide_resnet": value}, channels=1).state_dict()
    state |= {"mu": torch.tensor([0.3]).view(1, 1, 1, 1), "sigma": torch.tensor([0.2]).view(1, 1, 1, 1)}
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    weights = {"weights": {"file": str(tmp_path / "weights.pt")}}
    with pytest.raises(ConfigError, match=r"input.normalize=.*mean.*\[0.3\].*std.*\[0.2\]"):
        sl.train({"wide_resnet": {**value, **weights}}, SMALL, out=tmp_path, **UNTRAINED)
    sl.train(
        {"wide_resnet": {**value, **weights, "mean": [0.3], "std": [0.2]}}, SMALL, out=tmp_path, **UNTRAINED
    )
