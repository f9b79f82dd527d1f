"""The mean of the weights of several nets, against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stresslens.core.soups import averaged, first_difference


def linear(dtype: torch.dtype) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).to(dtype)


def test_linear_nets_answer_with_the_mean_of_their_logits() -> None:
    torch.manual_seed(0)
    nets = [linear(torch.float64) for _ in range(3)]
    x = torch.rand(5, 3, 2, 2, dtype=torch.float64)
    mean = torch.stack([net(x) for net in nets]).mean(0)
    assert torch.allclose(averaged(nets)(x), mean, rtol=0, atol=1e-15)


def test_the_mean_is_computed_in_float64_and_the_members_stay_as_they_are() -> None:
    torch.manual_seed(0)
    nets = [linear(torch.float32) for _ in range(7)]
    before = [net[1].weight.clone() for net in nets]  # type: ignore[index]
    soup = averaged(nets)
    exact = sum(weight.double() for weight in before) / 7
    assert torch.equal(soup[1].weight, exact.float())  # type: ignore[index, union-attr]
    assert all(torch.equal(net[1].weight, weight) for net, weight in zip(nets, before))  # type: ignore[index]


def test_equal_nets_are_their_own_mean_bit_for_bit() -> None:
    torch.manual_seed(0)
    net = linear(torch.float32)
    same = averaged([net, net, net]).state_dict()
    assert all(torch.equal(same[name], value) for name, value in net.state_dict().items())


def test_integers_are_those_of_the_first() -> None:
    nets = [nn.BatchNorm2d(2) for _ in range(2)]
    for k, net in enumerate(nets):
        net.num_batches_tracked += 3 + 4 * k
        net.running_mean += k
    soup = averaged(nets)
    assert soup.num_batches_tracked == 3
    assert torch.equal(soup.running_mean, torch.full((2,), 0.5))


def test_different_nets_are_refused_with_the_first_tensor_that_differs() -> None:
    narrow, wide = nn.Sequential(nn.Linear(4, 2)), nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"0\.weight is 2×4 in the first and 3×4 in the other"):
        averaged([narrow, wide])
    longer = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    assert first_difference(narrow.state_dict(), longer.state_dict()).startswith("1.weight is missing in")
    assert not first_difference(narrow.state_dict(), narrow.state_dict())
