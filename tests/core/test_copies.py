"""Copies of a module: what cannot be copied, torch.compile, and what is restored afterwards."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.copies import check_copy, copied, departure, eager_module, responses
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import fresh_images, is_plain
from stresslens.core.layers import straight_through
from stresslens.core.pool_order import pool_first


class Holder(nn.Module):
    """Holds things that copy.deepcopy cannot copy, at some depth."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.lock = threading.Lock()
        self.made: dict[str, Any] = {"seen": [self.net(torch.ones(1, 4))], "lock": (self.lock, 1)}

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.flatten(1))
        return out


def test_what_cannot_be_copied_is_shared_or_copied_without_its_graph() -> None:
    net = Holder()
    copy: Any = copied(net)
    assert copy.lock is net.lock
    assert copy.made["lock"] == (net.lock, 1)
    assert torch.equal(copy.made["seen"][0], net.made["seen"][0])
    assert not copy.made["seen"][0].requires_grad
    assert net.made["seen"][0].requires_grad
    assert copy.net.weight is not net.net.weight
    copy.made["seen"].append(1)
    assert len(net.made["seen"]) == 1


def test_a_module_without_torch_compile_is_itself() -> None:
    net = Holder()
    assert eager_module(net) is net
    assert eager_module(torch.compile(net, backend="eager")) is net  # type: ignore[arg-type]


def test_a_compiled_part_is_left_out_in_a_copy_with_the_plain_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.compile(nn.Linear(4, 4), backend="eager")
            self.again = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) + self.again(x)  # type: ignore[no-any-return]

    net = Twice()
    plain: Any = eager_module(net)
    assert plain.first is plain.again
    assert list(plain.state_dict()) == ["first.weight", "first.bias", "again.weight", "again.bias"]
    assert type(net.first).__name__ == "OptimizedModule"


def test_responses_restore_attributes_buffers_and_random_numbers() -> None:
    class Moving(nn.Module):
        passes: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))
            self.norm, self.drop, self.calls = nn.BatchNorm2d(1), nn.Dropout(0.5), 0
            self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            self.calls, self.passes, self.new = self.calls + 1, self.passes + 1, 1
            return self.drop(self.norm(x)).flatten(1) * self.frozen  # type: ignore[no-any-return]

    net, x = Moving().train(), torch.rand(4, 1, 3, 3)
    state, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    first, second = responses(net, x), responses(net, x)
    assert not departure(first, second)
    assert "gradient of frozen" in first[0]
    assert (net.calls, hasattr(net, "new"), net.frozen.requires_grad) == (0, False, False)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_responses_without_gradients_are_the_outputs_alone() -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), torch.rand(4, 1, 3, 3)
    both = zip(responses(net, x), responses(net, x, gradients=False), strict=True)
    for whole, outputs in both:
        assert list(outputs) == ["output 0"]
        assert torch.equal(outputs["output 0"], whole["output 0"])


def test_a_difference_is_told() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    x, other = torch.rand(4, 1, 3, 3), copied(net)
    assert not departure(responses(net, x), responses(other, x))
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    assert departure(responses(net, x), responses(other, x)).endswith("differs")
    with pytest.raises(ConfigError, match="a copy of Sequential computes another function"):
        check_copy(net, other, x)


def test_a_small_gradient_that_is_missing_is_told() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.Linear(4, 3))
    expected = responses(net, torch.rand(4, 1, 3, 3))
    found = [{k: v if "1.weight" not in k else torch.zeros(2) for k, v in each.items()} for each in expected]
    assert departure(expected, found) == "gradient of 1.weight differs"


def test_a_model_that_differs_from_itself_is_not_refused() -> None:
    class Coin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            noise = torch.tensor(float(next(numbers)))
            return self.net(x.flatten(1)) * noise  # type: ignore[no-any-return]

    numbers = iter(range(1, 100))
    net = Coin()
    check_copy(net, copied(net), torch.rand(4, 1, 3, 3))


def test_only_a_hook_of_ours_leaves_a_module_plain() -> None:
    layer = nn.ReLU()
    layer.register_forward_pre_hook(fresh_images)
    assert is_plain(layer)
    layer.register_forward_hook(lambda module, inputs, output: None)
    assert not is_plain(layer)


def test_a_shared_part_is_passed_straight_through_under_each_of_its_names() -> None:
    class Rounds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.round()

    step = Rounds()
    net = nn.Sequential(step, nn.Flatten(), nn.Linear(4, 4), step, nn.Linear(4, 2))
    changed = straight_through(net, ["0"])
    x = torch.rand(3, 1, 2, 2, requires_grad=True)
    assert torch.equal(changed(x), net(x))
    (slope,) = torch.autograd.grad(changed(x).sum(), x)
    assert slope.abs().sum() > 0
    assert isinstance(net[0], Rounds)


def test_hooks_that_come_later_see_the_layers_in_their_own_order() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
    pool_first(net)
    seen: list[tuple[int, ...]] = []
    handle = net[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:]))
    net(torch.rand(2, 1, 6, 6))
    handle.remove()
    assert seen == [(4, 4)]
