"""benchmarks/operators.py measures a convolution of the user's own, if it equals the library's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

OWN = """
import torch.nn.functional as F
from torch import nn

def columns(x, weight, bias, stride, padding):
    patches = F.unfold(x, weight.shape[2:], padding=padding, stride=stride)
    out = weight.flatten(1) @ patches
    height = (x.shape[2] + 2 * padding[0] - weight.shape[2]) // stride[0] + 1
    return (out if bias is None else out + bias[:, None]).unflatten(2, (height, -1))

def without_stride(x, weight, bias, stride, padding):
    return columns(x, weight, bias, (1, 1), padding)

def without_padding(x, weight, bias, stride, padding):
    return columns(x, weight, bias, stride, (0, 0))

def without_bias(x, weight, bias, stride, padding):
    return columns(x, weight, None, stride, padding)

def half_a_gradient(x, weight, bias, stride, padding):
    return columns(x, (weight + weight.detach()) / 2, bias, stride, padding)

class Layer(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return columns(x, weight, bias, self.stride, self.padding)
"""


@pytest.fixture(scope="module")
def operators() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "operators.py"
    spec = importlib.util.spec_from_file_location("operators", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["columns", "Layer"])
def test_a_right_one_computes_what_the_library_does(name: str, operators: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    own = f"{tmp_path / 'own.py'}:{name}"
    operators.check_own(own)
    nets = []
    for each in ("library", own):
        torch.manual_seed(0)
        nets.append(operators.net_of(each, (3, 16, 16)))
    x = torch.rand(2, 3, 16, 16)
    assert not any(type(module) is nn.Conv2d for module in nets[1].modules())
    assert torch.allclose(nets[0](x), nets[1](x), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("without_stride", "output"),
        ("without_padding", "output"),
        ("without_bias", "output"),
        ("half_a_gradient", "gradient of weight"),
        ("missing", "has no class and no function missing"),
    ],
)
def test_a_wrong_one_is_refused(name: str, said: str, operators: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(SystemExit, match=said):
        operators.check_own(f"{tmp_path / 'own.py'}:{name}")
