"""Every optimizer against torch's own; tests/config/test_registry.py checks the signatures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizer_steps import LIBRARIES, goes_on_identically, network, ours, take

from stresslens.config import registry

REFERENCES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.8}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.8}),
    "adam": (torch.optim.Adam, {}, {"eps": 1e-6}),
    "adamw": (torch.optim.AdamW, {}, {"eps": 1e-6}),
    "rmsprop": (torch.optim.RMSprop, {}, {"alpha": 0.9, "momentum": 0.5}),
}
"""Of each optimizer: torch's class, what its name implies, and options that both know by the same name."""
every = pytest.mark.parametrize("name", registry.names("optimizers"))
known = pytest.mark.parametrize("name", REFERENCES)


def test_every_optimizer_has_its_reference_here() -> None:
    assert {*REFERENCES, *LIBRARIES} == set(registry.names("optimizers"))


@pytest.mark.breadth
@known
@pytest.mark.parametrize("weight_decay", [None, 0.0, 0.03])
@pytest.mark.parametrize("varied", [False, True], ids=["defaults", "options"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_twenty_steps_are_torchs(
    name: str, weight_decay: float | None, varied: bool, dtype: torch.dtype
) -> None:
    kind, implied, options = REFERENCES[name]
    options = {
        **(options if varied else {}),
        **({} if weight_decay is None else {"weight_decay": weight_decay}),
    }
    net, reference = network(dtype), network(dtype)
    found = take(net, ours(name, net, **options), range(20))
    expected = take(reference, kind(reference.parameters(), lr=0.05, **{**implied, **options}), range(20))  # type: ignore[call-arg]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=10 * tolerance, atol=tolerance)
    assert not torch.equal(found[0], next(network(dtype).parameters()))


@pytest.mark.parametrize("weight_decay", [0.0, 0.03])
def test_plain_sgd_is_torchs_bit_for_bit(weight_decay: float) -> None:
    net, reference = network(), network()
    found = take(net, ours("sgd", net, weight_decay=weight_decay), range(20))
    expected = take(
        reference,
        torch.optim.SGD(reference.parameters(), 0.05, weight_decay=weight_decay, foreach=True),
        range(20),
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_betas_reach_torch(name: str) -> None:
    assert ours(name, network(), beta1=0.5, beta2=0.7).param_groups[0]["betas"] == (0.5, 0.7)


@every
def test_a_saved_state_goes_on_identically(name: str) -> None:
    goes_on_identically(name)


@every
def test_the_learning_rate_is_read_at_every_step(name: str) -> None:
    net = network()
    optimizer = ours(name, net)
    take(net, optimizer, range(2))
    optimizer.param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, take(net, optimizer, range(2, 4)), strict=True))


@every
def test_parameters_without_a_gradient_stay(name: str) -> None:
    net = network()
    optimizer = ours(name, net)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step()  # none has one
    net[0].weight.grad = torch.ones_like(net[0].weight)
    optimizer.step()
    after = [p.detach() for p in net.parameters()]
    assert not torch.equal(before[0], after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))


@every
def test_a_closure_is_called_and_its_loss_returned(name: str) -> None:
    net = network()
    optimizer = ours(name, net)

    def closure() -> float:
        loss = net(torch.ones(2, 6)).square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == pytest.approx(network()(torch.ones(2, 6)).square().sum().item())


@every
def test_steps_leave_gradients_and_graph_alone(name: str) -> None:
    net = network()
    optimizer = ours(name, net, weight_decay=0.5)
    net(torch.ones(2, 6)).square().sum().backward()
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    optimizer.step()
    assert all(p.requires_grad and p.is_leaf for p in net.parameters())
    assert all(
        torch.equal(p.grad, g) for p, g in zip(net.parameters(), gradients, strict=True) if p.grad is not None
    )
