"""Guided gradients where ReLUs are hidden, doubled or cannot be told; Grad-CAM of scripted and
compiled nets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.errors import ConfigError


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return slope * (x > 0)


class Net(nn.Module):
    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.relu = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 3), relu

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.relu(self.conv(x)).flatten(1))
        return logits


def images() -> Tensor:
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def guided(net: nn.Module) -> sl.Explanation:
    return sl.explain(net.eval(), images(), {"gradcam": {"guided": True}}, answers=[0, 1, 2])


UNTOLD: dict[str, Callable[[Tensor], Tensor]] = {
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "times a mask": lambda x: x * (x > 0),
    "times a mask of numbers": lambda x: (x > 0).float() * x,
    "masked fill": lambda x: x.masked_fill(x < 0, 0),
    "custom function": lambda x: Own.apply(x),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("name", UNTOLD)
def test_a_relu_that_cannot_be_told_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="guided cannot tell the ReLUs of this model: "):
        guided(Net(UNTOLD[name]))
    assert sl.explain(Net(UNTOLD[name]).eval(), images(), "gradcam").maps.any()


@pytest.mark.parametrize("act", [nn.GELU(), nn.Tanh(), nn.LeakyReLU(0.1), nn.ELU()], ids=repr)
def test_other_activations_are_no_relu(act: nn.Module) -> None:
    with pytest.raises(ConfigError, match="guided needs a ReLU, and the model computes none"):
        guided(Net(act))


def prepared(name: str) -> nn.Module:
    net = Net(nn.ReLU())
    if name == "weight_norm":
        nn.utils.parametrizations.weight_norm(net.conv)
    elif name == "compiled":
        return torch.compile(net, backend="aot_eager")  # type: ignore[return-value]
    elif name == "compiled and run":
        net = torch.compile(net, backend="aot_eager")  # type: ignore[assignment]
        net.eval()
        net(images())
    elif name == "traced graph":
        return torch.fx.symbolic_trace(net)
    elif name == "checkpointed, not reentrant":
        return Net(lambda x: torch.utils.checkpoint.checkpoint(torch.relu, x, use_reentrant=False))
    return net


@pytest.mark.parametrize(
    "name",
    [
        "weight_norm",
        "traced graph",
        "checkpointed, not reentrant",
        pytest.param("compiled", marks=pytest.mark.slow),
        pytest.param("compiled and run", marks=pytest.mark.slow),
    ],
)
def test_the_same_maps_of_a_net_that_is_kept_in_another_form(name: str) -> None:
    net = prepared(name)
    hooks = [len(module._forward_hooks) for module in net.modules()]
    before = net.eval()(images())
    assert guided(net).maps == pytest.approx(guided(Net(nn.ReLU())).maps, abs=1e-5)
    assert torch.equal(net(images()), before)
    assert hooks == [len(module._forward_hooks) for module in net.modules()]


def test_a_layer_whose_output_is_changed_under_another_name_is_refused() -> None:
    class Aliased(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = self.conv(x)
            self.relu(h).mul_(3)  # nn.Identity gives h itself
            logits: Tensor = self.head(h.flatten(1))
            return logits

    net = Aliased(nn.Identity()).eval()
    net.add_module("same", net.relu)
    assert sl.explain(net, images(), {"gradcam": {"layer": "conv"}}).maps.any()
    with pytest.raises(ConfigError, match="answers otherwise while relu is watched"):
        sl.explain(net, images(), {"gradcam": {"layer": "relu"}})
