"""Every explainer on every model: a finite map for each image, the same whatever stands beside it,
and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_models import BUILT, model_of
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.attack_base import attacked
from stresslens.core.data import Split
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.maps import Maps
from stresslens.plugins.explainers import _passes

CHEAP: dict[str, dict[str, Any]] = {"smooth_grad": {"samples": 3}, "occlusion": {"stride": 4}}
SHAPES = [(1, 12, 16), (3, 16, 16), (5, 16, 12)]
every = pytest.mark.parametrize("name", registry.names("explainers"))


@pytest.fixture(autouse=True)
def _few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps that do not add up are done again with up to 256 points, not 4,096."""
    monkeypatch.setattr("stresslens.plugins.explainers.integrated_gradients.MOST", 256)


def images(shape: tuple[int, int, int], n: int = 5) -> tuple[Tensor, Tensor]:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 4


def explained(
    name: str, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None, **options: Any
) -> Maps:
    bound = registry.resolve("explainers", {name: CHEAP.get(name, {}) | options})
    train = Split(x, y, 1.0)
    with attacked(model):
        draws = Draws(3, torch.arange(len(x)) if index is None else index)
        maps: Maps = bound(model=model, x=x, y=y, draws=draws, train=train)
    return maps.checked(x, name)


def suits(name: str, model: str) -> bool:
    """Which pairs there is a map for: layers laid out like the image, or attention."""
    return {"gradcam": model not in ("linear", "mlp"), "rollout": model in ("vit", "openclip")}.get(
        name, True
    )


@pytest.mark.breadth
@every
@pytest.mark.parametrize("model", BUILT)
@pytest.mark.parametrize("shape", [pytest.param(SHAPES[0], marks=pytest.mark.slow), *SHAPES[1:]], ids=str)
def test_a_finite_map_for_each_image(name: str, model: str, shape: tuple[int, int, int]) -> None:
    net, (x, y) = model_of(model, shape), images(shape)
    if not suits(name, model):
        with pytest.raises(
            ConfigError, match=r"laid out like the image|has no attention layers|within windows"
        ):
            explained(name, net, x, y)
        return
    maps = explained(name, net, x, y)
    assert maps.unit
    assert maps.signed or bool((maps.values >= 0).all())
    assert float(maps.values.abs().amax()) > 0
    assert maps.values.dtype == torch.float32


@pytest.mark.breadth(3)
@every
def test_the_same_whatever_stands_beside_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, (x, y) = model_of("vit", (3, 16, 16)), images((3, 16, 16), 7)
    whole = explained(name, net, x, y).values
    keep = torch.tensor([5, 1])
    assert torch.allclose(explained(name, net, x[keep], y[keep], keep).values, whole[keep], atol=1e-5)
    monkeypatch.setattr(_passes, "MOST", 2)
    assert torch.allclose(explained(name, net, x, y).values, whole, atol=1e-5)


class Rectified(nn.Module):
    """The same convolutional net in several forms: `relu` is called behind each convolution."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.head = relu, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.first(x)), 2)
        logits: Tensor = self.head(self.relu(self.second(x)).mean((2, 3)))
        return logits


class Derived(nn.ReLU):
    """A class derived from ReLU that calls a function."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "torch.relu": torch.relu,
    "relu_": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(0),
    "clamp_min": lambda x: torch.clamp_min(x, 0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "max with a number on the left": lambda x: torch.max(torch.zeros(()), x),
    "threshold": nn.Threshold(0, 0),
    "leaky with a slope of 0": nn.LeakyReLU(0.0),
    "capped far above": nn.Hardtanh(0, 1e6),
    "derived class": Derived(),
}


@pytest.mark.breadth
@every
@pytest.mark.parametrize("form", FORMS)
def test_the_same_however_a_relu_is_written(name: str, form: str) -> None:
    x, y = images((3, 16, 16))
    variants: list[dict[str, Any]] = [{}, {"guided": True}, {"layer": "first"}] if name == "gradcam" else [{}]
    for options in variants if name != "rollout" else []:
        expected, found = (
            explained(name, Rectified(relu), x, y, **options) for relu in (nn.ReLU(), FORMS[form])
        )
        assert found.unit == expected.unit
        assert torch.allclose(found.values, expected.values, atol=1e-5)


@pytest.mark.breadth(4)
@every
@pytest.mark.parametrize("model", ["simple_cnn", "vit"])
def test_neither_order_nor_batch_nor_memory_format_matters(name: str, model: str) -> None:
    """One image at a time, in another order, in another memory format, and once more."""
    if not suits(name, model):
        return
    net, (x, y) = model_of(model, (3, 16, 16)), images((3, 16, 16), 6)
    x[0], x[1] = 0, x[1] * 0.05  # a black and a dark image, first
    whole = explained(name, net, x, y)
    order, index = torch.tensor([3, 5, 0, 2, 1, 4]), torch.arange(6)
    turned = explained(name, net, x[order], y[order], order)
    assert turned.unit == whole.unit
    assert torch.allclose(turned.values, whole.values[order], atol=1e-5)
    alone = [explained(name, net, x[k : k + 1], y[k : k + 1], index[k : k + 1]) for k in range(6)]
    assert {maps.unit for maps in alone} == {whole.unit}
    assert torch.allclose(torch.cat([maps.values for maps in alone]), whole.values, atol=1e-5)
    last = explained(name, net, x.contiguous(memory_format=torch.channels_last), y)
    assert torch.allclose(last.values, whole.values, atol=1e-5)
    net = net.to(memory_format=torch.channels_last)  # sums in another order
    assert torch.allclose(explained(name, net, x, y).values, whole.values, atol=1e-4)


class Failing(nn.Module):
    """Raises from its second call on."""

    def __init__(self, inner: nn.Module, after: int) -> None:
        super().__init__()
        self.inner, self.left = inner, after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("broken")
        result: Tensor = self.inner(x)
        return result


@pytest.mark.breadth
@every
@pytest.mark.parametrize("calls", [99_999, 0, 1, 2])
def test_nothing_is_left_behind_also_after_an_exception(name: str, calls: int) -> None:
    model = Failing(model_of("vit", (3, 16, 16)), calls).train()
    x, y = images((3, 16, 16))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken") if calls == 0 else suppress(RuntimeError):
        explained(name, model, x, y)
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not x.requires_grad
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
