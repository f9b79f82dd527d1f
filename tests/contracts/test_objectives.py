"""Every objective, and the gradient written by hand against autograd's; tests/config/test_registry.py checks
the signatures."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.layers import Normalize, input_layers, with_input_layers
from stresslens.core.types import Step

SHAPE, CLASSES = (2, 3, 4), 5
MODELS: dict[str, Any] = {
    "linear": "linear",
    "linear from N(0, 1)": {"linear": {"start": "normal"}},
    "mlp": {"mlp": {"widths": [7]}},
    "deep mlp": {"mlp": {"widths": [9, 6, 8]}},
}
TOWERS = {"embed": 8, "image": {"width": 8, "layers": 1, "patch": 3}, "text": {"width": 8, "layers": 1}}
SUITED: dict[str, Any] = {"contrastive": {"openclip": {"layout": TOWERS}}}
"""Nets for objectives that not every net suits."""
NEEDED = {"distillation": {"run": "teacher"}}
"""Options that an objective needs."""
every = pytest.mark.parametrize("name", registry.names("objectives"))
models = pytest.mark.parametrize("value", MODELS.values(), ids=MODELS.keys())
losses = pytest.mark.parametrize("loss", ["mse", "cross_entropy"])


def model(value: Any = "linear", dtype: torch.dtype = torch.float64) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = registry.resolve("models", value)(shape=SHAPE, classes=CLASSES, names=tuple("abcde"))
    return with_input_layers(net, Normalize.by_moments([0.4, 0.6], [0.3, 0.2])).to(dtype)


def batch(n: int = 11, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *SHAPE, generator=generator, dtype=dtype), torch.randint(
        CLASSES, (n,), generator=generator
    )


def loss_of(objective: Any, whole: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    step = Step(Draws(0, torch.arange(len(x))), 0, 0.0, {})
    value = {objective: NEEDED[objective]} if str(objective) in NEEDED else objective
    found: Tensor = registry.resolve("objectives", value)(
        model=whole,
        x=x,
        y=y,
        step=step,
        net=whole.get_submodule("net"),
        inputs=input_layers(whole)(x),
        teacher=model({"linear": {"start": "normal"}}),
    )
    if found.requires_grad:
        found.backward()
    return found.detach()


def gradients(whole: nn.Module) -> list[Tensor]:
    return [p.grad for p in whole.parameters() if p.grad is not None]


@every
def test_a_loss_is_a_finite_scalar_that_leaves_gradients(name: str) -> None:
    whole = model(SUITED.get(name, {"mlp": {"widths": [7]}}))
    loss = loss_of(name, whole, *batch())
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert loss > 0
    assert len(gradients(whole)) == len(list(whole.parameters()))
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients(whole))


@every
def test_gradients_add_up_over_batches(name: str) -> None:
    x, y = batch()
    once, twice = model(SUITED.get(name, "linear")), model(SUITED.get(name, "linear"))
    loss_of(name, once, x, y)
    loss_of(name, twice, x, y)
    loss_of(name, twice, x, y)
    assert all(torch.allclose(2 * a, b) for a, b in zip(gradients(once), gradients(twice), strict=True))


@pytest.mark.breadth
@models
@losses
@pytest.mark.parametrize("n", [1, 11, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_by_hand_is_autograd(value: Any, loss: str, n: int, dtype: torch.dtype) -> None:
    x, y = batch(n, dtype=dtype)
    automatic, written = model(value, dtype), model(value, dtype)
    before = x.clone()
    expected = loss_of({"supervised": {"loss": loss}}, automatic, x, y)
    found = loss_of({"by_hand": {"loss": loss}}, written, x, y)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-13}
    assert torch.allclose(found, expected, **tolerance)
    assert torch.equal(x, before)
    for a, b in zip(gradients(written), gradients(automatic), strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, **tolerance)


@pytest.mark.breadth(1)
@models
@losses
def test_two_hundred_steps_by_hand_end_where_the_library_ends(value: Any, loss: str) -> None:
    automatic, written = model(value), model(value)
    theirs = torch.optim.SGD(automatic.parameters(), 0.05)
    ours = registry.resolve("optimizers", "sgd")(parameters=list(written.parameters()), lr=0.05)
    for step in range(200):
        x, y = batch(16, seed=step % 10)
        for whole, optimizer, objective in ((automatic, theirs, "supervised"), (written, ours, "by_hand")):
            optimizer.zero_grad()
            loss_of({objective: {"loss": loss}}, whole, x, y)
            optimizer.step()
    start = model(value)
    for a, b, c in zip(written.parameters(), automatic.parameters(), start.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-6)
        assert not torch.allclose(a, c, atol=1e-3)


def test_supervised_takes_mixed_labels_and_by_hand_refuses_them() -> None:
    x, y = batch()
    soft = nn.functional.one_hot(y, CLASSES).double()
    assert torch.allclose(loss_of("supervised", model(), x, soft), loss_of("supervised", model(), x, y))
    with pytest.raises(ConfigError, match="one label an image"):
        loss_of("by_hand", model(), x, soft)


def affine(*sizes: int) -> list[nn.Module]:
    return [nn.Linear(a, b) for a, b in pairwise(sizes)]


class Skipping(nn.Module):
    """The layers of an MLP, in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.first, self.relu, self.last = (
            nn.Flatten(),
            nn.Linear(24, 24),
            nn.ReLU(),
            nn.Linear(24, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.flatten(x)
        out: Tensor = self.last(x + self.relu(self.first(x)))
        return out


OTHERS: dict[str, nn.Module] = {
    "convolution": nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(6, 5)),
    "dropout": nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(24, 5)),
    "nested": nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(24, 5))),
    "no ReLU between": nn.Sequential(nn.Flatten(), *affine(24, 7, 5)),
    "two ReLUs between": nn.Sequential(nn.Flatten(), nn.Linear(24, 7), nn.ReLU(), nn.ReLU(), nn.Linear(7, 5)),
    "ReLU at the end": nn.Sequential(nn.Flatten(), nn.Linear(24, 5), nn.ReLU()),
    "ReLU at the start": nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(24, 5)),
    "no bias": nn.Sequential(nn.Flatten(), nn.Linear(24, 5, bias=False)),
    "no children": nn.Linear(4, 5),
    "an order of its own": Skipping(),
}


@pytest.mark.parametrize("net", OTHERS.values(), ids=OTHERS.keys())
def test_by_hand_refuses_what_it_would_get_wrong(net: nn.Module) -> None:
    """Or gets it right."""
    whole = with_input_layers(net, Normalize.by_moments([0.4, 0.6], [0.3, 0.2])).double()
    x, y = batch()
    try:
        found = loss_of({"by_hand": {"loss": "cross_entropy"}}, whole, x, y)
    except ConfigError as error:
        says = str(error)
    else:
        written = [g.clone() for g in gradients(whole)]
        whole.zero_grad()
        expected = loss_of("supervised", whole, x, y)
        says = (
            "supervised"
            if torch.allclose(found, expected) and _same(written, gradients(whole))
            else f"{found} != {expected}"
        )
    assert "supervised" in says


def _same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(torch.allclose(a, b) for a, b in zip(left, right, strict=True))


def test_by_hand_knows_each_net_anew() -> None:
    x, y = batch()
    for value in (*MODELS.values(), *MODELS.values()):
        first, second = model(value), model(value)
        assert torch.allclose(
            loss_of({"by_hand": {"loss": "mse"}}, first, x, y),
            loss_of({"supervised": {"loss": "mse"}}, second, x, y),
        )
