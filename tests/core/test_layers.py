"""What a net is made of, against figures redone by hand, and the layers in front of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.copies import copied
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import evaluating, hooked
from stresslens.core.layer_table import layer_table
from stresslens.core.layers import (
    Dropout,
    Normalize,
    check_output,
    input_layers,
    with_input_layers,
)
from stresslens.core.pool_order import pool_first
from stresslens.plugins.models.mlp import mlp

MNIST = (1, 28, 28)


# --- hooks and modes ----------------------------------------------------------------------------------------


class Bomb(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("boom")


def hooks(net: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in net.modules())


def mixed_modes() -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Dropout())
    net.train()
    net[2].eval()  # a frozen batch norm must come back frozen
    return net


def modes(net: nn.Module) -> list[bool]:
    return [module.training for module in net.modules()]


def test_a_table_leaves_the_net_as_it_was() -> None:
    net = mixed_modes()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    layer_table(net, (1, 2, 2))
    assert modes(net) == [True, True, True, False, True]
    assert hooks(net) == 0
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_hooks_come_off_and_modes_come_back_after_an_exception() -> None:
    net = mixed_modes().append(Bomb())
    with pytest.raises(ConfigError, match="boom"):
        layer_table(net, (1, 2, 2))
    assert hooks(net) == 0
    assert modes(net) == [True, True, True, False, True, True]


def test_evaluating_is_evaluation_mode_for_every_module() -> None:
    net = mixed_modes()
    with evaluating(net):
        assert not any(modes(net))
    assert modes(net) == [True, True, True, False, True]


def test_hooked_reports_each_leaf_by_name_with_its_input_and_output() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    seen: list[tuple[str, str, tuple[int, ...], tuple[int, ...]]] = []

    def hook(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen.append((name, type(module).__name__, tuple(inputs[0].shape), tuple(output.shape)))

    with hooked(net, hook):
        net(torch.zeros(3, 1, 2, 2))
    net(torch.zeros(3, 1, 2, 2))
    assert seen == [
        ("0", "Flatten", (3, 1, 2, 2), (3, 4)),
        ("1.0", "Linear", (3, 4), (3, 2)),
        ("1.1", "ReLU", (3, 2), (3, 2)),
    ]


# --- normalising --------------------------------------------------------------------------------------------


def random_split(channels: int = 3) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, (50, channels, 4, 5), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(50) % 2)


def test_standard_gives_each_channel_mean_0_and_deviation_1() -> None:
    split = random_split()
    y = Normalize.fitted(split, "standard")(split.floats(split.images)).double()
    assert y.mean((0, 2, 3)).abs().max() < 1e-6
    assert (y.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_pixel_minmax_gives_each_pixel_its_own_range() -> None:
    split = random_split()
    split.images[:, 1, 2, 3] = 77
    normalize = Normalize.fitted(split, "pixel_minmax")
    y = normalize(split.floats(split.images))
    low, high = y.aminmax(dim=0)
    constant = torch.zeros(3, 4, 5, dtype=torch.bool)
    constant[1, 2, 3] = True
    assert torch.allclose(low, torch.zeros(3, 4, 5), atol=1e-6)
    assert torch.allclose(high[~constant], torch.ones(59), atol=1e-6)
    assert high[constant].item() == 0
    unseen = normalize(torch.ones(1, 3, 4, 5))[0, 1, 2, 3]
    assert unseen == 0  # whatever a pixel that never varied shows later


def test_none_leaves_the_images_alone() -> None:
    split = random_split()
    x = split.floats(split.images)
    assert torch.equal(Normalize.fitted(split, "none")(x), x)


def test_given_moments() -> None:
    normalize = Normalize.by_moments([0.5, 0.25], [0.5, 0.1])
    y = normalize(torch.tensor([1.0, 0.35]).reshape(1, 2, 1, 1))
    assert torch.allclose(y.flatten(), torch.tensor([1.0, 1.0]))
    assert Normalize.by_moments([0.25], [0.0])(torch.full((1, 1, 1, 1), 0.75)).item() == 0.5


@pytest.mark.parametrize("value", [0, 1, 5, 77, 255])
def test_a_channel_that_never_varies_is_only_centred(value: int) -> None:
    images = torch.full((7, 1, 5, 5), value, dtype=torch.uint8)
    normalize = Normalize.fitted(Split(images, torch.zeros(7, dtype=torch.int64)), "standard")
    assert normalize.gain.item() == 1
    assert abs(normalize(torch.full((1, 1, 5, 5), value / 255))).max() < 1e-6


def test_normalize_is_saved_as_buffers_and_not_trained() -> None:
    normalize = Normalize.by_moments([0.5], [0.5])
    assert not list(normalize.parameters())
    assert set(normalize.state_dict()) == {"gain", "shift"}


def test_build_puts_resizing_and_normalising_first() -> None:
    net = mlp((1, 4, 6), 3)
    model = with_input_layers(net, Normalize.by_moments([0.5], [0.5]), (4, 6))
    assert [name for name, _ in model.named_children()] == ["resize", "normalize", "net"]
    assert model(torch.rand(2, 1, 9, 9)).shape == (2, 3)
    x = torch.rand(2, 1, 9, 9)
    assert torch.equal(net(input_layers(model)(x)), model(x))
    assert [
        name for name, _ in with_input_layers(net, Normalize.by_moments([0.5], [0.5])).named_children()
    ] == [
        "normalize",
        "net",
    ]


# --- what a model may return --------------------------------------------------------------------------------


class Returns(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("net", "says"),
    [
        pytest.param(
            Returns((torch.zeros(2, 3), torch.ones(2, 3))),
            "Returns returns a tuple with 2 tensors",
            id="tuple",
        ),
        pytest.param(
            Returns(torch.zeros(2, 4)), r"returns shape \(N, 4\); expected logits \(N, 3\)", id="classes"
        ),
        pytest.param(Returns(torch.zeros(2, 3, 1, 1)), r"returns shape \(N, 3, 1, 1\)", id="axes"),
        pytest.param(Returns(torch.zeros(3, 3)), "expected logits", id="images"),
        pytest.param(
            nn.Linear(9, 3),
            r"mine cannot take images of shape \(1, 2, 2\) \(channels, height, width\): ",
            id="shape",
        ),
        pytest.param(Returns(torch.full((2, 3), torch.nan)), "finite", id="not finite"),
    ],
)
def test_check_output_says_what_is_wrong(net: nn.Module, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_output(net, (1, 2, 2), 3, "mine")


@pytest.mark.parametrize("error", [AssertionError, IndexError, AttributeError, KeyError, ValueError])
def test_check_output_turns_any_failure_into_a_message(error: type[Exception]) -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise error("height 2 is not 224")

    with pytest.raises(ConfigError, match=r"mine cannot take images of shape.*height 2 is not 224"):
        check_output(Fails(), (1, 2, 2), 3, "mine")


def test_check_output_passes_a_model_and_leaves_its_modes() -> None:
    net = mixed_modes()
    check_output(net, (1, 2, 2), 2, "mine")
    check_output(net.double(), (1, 2, 2), 2, "mine")
    assert modes(net) == [True, True, True, False, True]


class _Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        self.head = nn.Linear(3 * 6 * 6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_before_relu_changes_no_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = _Nested().to(dtype)
    own = copied(net)
    assert [type(part).__name__ for part in pool_first(own)] == ["PooledFirst"]
    assert repr(own) == repr(net)
    assert list(own.state_dict()) == list(net.state_dict())
    x = (
        torch.randn(5, 1, 12, 12, generator=torch.Generator().manual_seed(1)).round(decimals=1).to(dtype)
    )  # ties included
    found = []
    for model in (net, own):
        point = x.clone().requires_grad_()
        logits = model(point)
        logits.square().sum().backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        found.append([logits.detach(), point.grad, *grads])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert pool_first(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == []


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_that_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    drop, x = Dropout(p), torch.ones(401, 1001, requires_grad=True)
    y = drop(x)
    dropped = float((y == 0).float().mean())
    assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5)
    assert torch.equal(y[y > 0], torch.full_like(y[y > 0], 1 / (1 - p)))
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, y)
    neighbours = (y[:, :-1] == 0) & (y[:, 1:] == 0)
    assert float(neighbours.float().mean()) == pytest.approx(p * p, abs=0.003)
    assert not torch.equal(drop(x), y)
    assert torch.equal(drop.eval()(x), x)


def test_dropout_of_nothing_and_of_everything() -> None:
    x = torch.rand(3, 5)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros(3, 5))
    assert Dropout(0.3)(x[:0]).shape == (0, 5)
