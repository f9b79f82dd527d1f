"""Gradients that are summed over processes while the backward pass goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from several import each, in_group
from torch import nn

from stresslens.core.distributed import ProcessGroup
from stresslens.training import gradient_buckets
from stresslens.training.gradient_buckets import _divided

SIZES = [3, 40, 5, 200, 7, 7, 1]


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.rand(size, dtype=torch.float64)) for size in SIZES]


def test_buckets_begin_with_the_last_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_buckets, "FIRST_BYTES", 8 * 10)
    monkeypatch.setattr(gradient_buckets, "BYTES", 8 * 50)
    assert [[p.numel() for p in bucket] for bucket in _divided(parameters())] == [
        [1, 7],
        [7],
        [200],
        [5, 40, 3],
    ]
    mixed = [nn.Parameter(torch.rand(2)), *parameters()[:2], nn.Parameter(torch.rand(2))]
    assert [[p.numel() for p in bucket] for bucket in _divided(mixed)] == [[2], [40, 3], [2]]


def summed(group: ProcessGroup, images: list[int], graph: bool) -> tuple[list[Any], float, int, list[str]]:
    """The mean gradients of a loss whose gradient is known, the mean loss, and the order of events. The
    second parameter has no gradient; the last process has no image where `images` says so."""
    gradient_buckets.FIRST_BYTES, gradient_buckets.BYTES = 8 * 10, 8 * 50
    rank, given = group.place.rank, parameters()
    events: list[str] = []
    begin = dist.all_reduce

    def noted(tensor: torch.Tensor, **options: Any) -> Any:
        events.append("sum" if options.get("async_op") else "figures")
        return begin(tensor, **options)

    dist.all_reduce = noted
    used = [p for k, p in enumerate(given) if k != 1]
    for _ in range(2):
        for p in given:
            p.grad = None
        if images[rank]:
            loss = sum((rank + 1) * (p * p).sum() for p in used)
            for p in used if not graph else ():
                p.grad = 2 * (rank + 1) * p.detach()
        else:
            loss = torch.zeros((), dtype=torch.float64)
        assert isinstance(loss, torch.Tensor)
        back = loss.backward if graph and images[rank] else lambda: None

        def pass_back(back: Callable[[], Any] = back) -> None:
            back()
            events.append("end of the pass")

        group.backward(pass_back, given, images[rank])
        value, count = group.combine(given, loss.detach(), images[rank], {})
    return (
        [None if p.grad is None else p.grad.clone() for p in given],
        value,
        count,
        events[len(events) // 2 :],
    )


@pytest.mark.slow
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("images", [[3, 2], [1, 0]])
def test_means_are_weighted_by_images(images: list[int], graph: bool) -> None:
    first, second = each(2, in_group, summed, images, graph)
    weight = sum(n * (rank + 1) for rank, n in enumerate(images)) / sum(images)
    for one, other, p in zip(first[0], second[0], parameters(), strict=True):
        if p.numel() == SIZES[1]:
            assert one is other is None
        else:
            assert one.equal(other)
            torch.testing.assert_close(one, 2 * weight * p.detach(), rtol=1e-14, atol=0)
    square = sum(float(p.detach().square().sum()) for p in parameters() if p.numel() != SIZES[1])
    assert first[1:3] == second[1:3]
    assert first[1] == pytest.approx(weight * square)
    assert first[2] == sum(images)
    early = first[3].index("end of the pass")
    assert first[3].count("sum") == 4
    assert early == (3 if graph else 0)  # the last bucket holds the parameter without a gradient
    if not images[1]:
        assert second[3][0] == "end of the pass"


def test_a_process_knows_its_share_of_a_batch() -> None:
    class Two(ProcessGroup):
        part = (1, 3)  # type: ignore[assignment]

    assert [Two().share(n) for n in (0, 1, 2, 3, 4, 5, 25)] == [
        len(range(n)[1::3]) for n in (0, 1, 2, 3, 4, 5, 25)
    ]
