"""What several processes do together, against the same worked out in one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import torch
from several import each, in_group, start
from torch import Tensor, nn

from stresslens.core import distributed
from stresslens.core.distributed import ALONE
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.torchrun import Rank, rank_of_process
from stresslens.training.process_group import TorchProcessGroup

counts = pytest.mark.parametrize("count", [2, 3])


class Net(nn.Module):
    """Two layers, one of which the loss never sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.seen, self.unseen = nn.Linear(5, 3).double(), nn.Linear(4, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(x)


def images(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.rand(n, 5, generator=generator, dtype=torch.float64), torch.randint(
        3, (n,), generator=generator
    )


def combined(
    group: distributed.ProcessGroup, sizes: list[int]
) -> tuple[list[Tensor | None], list[tuple[float, int]]]:
    """Gradients accumulated over batches of these sizes, and each batch's loss and size."""
    net = Net()
    rank, world = group.part
    told = []
    for n in sizes:
        x, y = (each[rank::world] for each in images(n))
        loss = nn.functional.cross_entropy(net(x), y) if len(y) else torch.zeros(())
        if len(y):
            loss.backward()
        told.append(group.combine([*net.parameters()], loss, len(y), {}))
    return [p.grad for p in net.parameters()], told


@pytest.mark.slow
@counts
@pytest.mark.parametrize(
    "sizes",
    [[7], [5, 1, 8], *(pytest.param(each, marks=pytest.mark.slow) for each in ([12], [2], [1]))],
    ids=str,
)
def test_gradients_are_those_of_the_whole_batch(count: int, sizes: list[int]) -> None:
    gradients, told = combined(ALONE, sizes)
    answers = each(count, in_group, combined, sizes)
    for theirs, losses in answers:
        assert [size for _, size in losses] == sizes
        assert [loss for loss, _ in losses] == pytest.approx([loss for loss, _ in told], rel=1e-14)
        for mine, other in zip(gradients, theirs, strict=True):
            assert (mine is None) == (other is None)
            assert mine is None or torch.allclose(mine, other, rtol=1e-13, atol=1e-15)
    assert all(a.equal(b) for a, b in zip(answers[0][0][:2], answers[-1][0][:2]))  # the same bits everywhere
    assert gradients[2] is None


def gathered(group: TorchProcessGroup) -> Any:
    rank, world = group.part
    rows = torch.arange(40, dtype=torch.float64).reshape(10, 2, 2)
    few = torch.arange(2)
    return (
        group.gather(rows[rank::world]),
        group.gather(few[rank::world]),
        group.total(rank + 1),
        group.broadcast_object(f"of {rank}"),
    )


@counts
def test_parts_make_a_whole_again_in_order_and_once(count: int) -> None:
    for rows, few, total, agreed in each(count, in_group, gathered):
        assert rows.equal(torch.arange(40, dtype=torch.float64).reshape(10, 2, 2))
        assert few.equal(torch.arange(2))
        assert total == count * (count + 1) / 2
        assert agreed == "of 0"


def obeying(group: TorchProcessGroup) -> list[Any]:
    """What is agreed after each batch: the second process hears a signal after the first, and wants
    to save after the second."""
    net, rank = Net(), group.place.rank
    x, y = images(4)
    heard = []
    for batch in range(5):
        group.combine([*net.parameters()], nn.functional.cross_entropy(net(x), y), 4, {})
        caught = (
            signal.SIGTERM
            if rank == 1 and batch >= 2
            else signal.SIGINT
            if rank == 0 and batch == 1
            else None
        )
        heard.append(group.agreed(caught, rank == 1 and batch in (0, 1)))
    return heard


def test_signals_and_savings_are_agreed_one_batch_later() -> None:
    first, second = each(2, in_group, obeying)
    assert first == second
    assert first == [
        (None, False),
        (None, True),
        (signal.SIGINT, False),
        (signal.SIGTERM, False),
        (signal.SIGTERM, False),
    ]


def with_state(group: TorchProcessGroup) -> dict[str, Tensor]:
    net, rank = Net(), group.place.rank
    state = (
        {"kept": torch.tensor(float(rank)), "reported: accuracy": torch.tensor(float(rank))}
        if rank < 2
        else {}
    )
    group.combine([*net.parameters()], torch.zeros(()), 1, state)
    return state


def test_what_lasts_of_a_state_is_the_first_ones() -> None:
    states = each(3, in_group, with_state)
    assert [float(state["kept"]) for state in states] == [0, 0, 0]
    assert float(states[1]["reported: accuracy"]) == 1
    assert states[2].keys() == {"kept"}


def failing(group: TorchProcessGroup, wrong: int) -> str:
    try:
        with group.raise_in_all():
            if group.place.rank == wrong:
                raise ConfigError("no such thing")
    except StresslensError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.mark.parametrize("wrong", [0, 1])
def test_an_error_of_one_is_raised_by_all(wrong: int) -> None:
    answers = each(2, in_group, failing, wrong)
    assert answers[wrong] == "ConfigError: no such thing"
    assert answers[1 - wrong] == f"StresslensError: process {wrong}: no such thing"


def abandoned(group: TorchProcessGroup) -> str:
    if group.place.rank == 1:
        os._exit(0)
    try:
        group.total(1)
    except StresslensError as error:
        return str(error)
    return "nothing"


def test_a_lost_process_is_told_in_words() -> None:
    started = start(2, in_group, abandoned)
    assert "another process of this training has ended" in started.answer(0)
    started.codes()


def drawn(group: TorchProcessGroup) -> Tensor:
    group.reseed(3, 1, 4)
    first = torch.rand(4)
    torch.rand(2)
    group.reseed(3, 1, 4)
    assert torch.rand(4).equal(first)
    return first


def test_each_process_draws_its_own_numbers() -> None:
    first, second = each(2, in_group, drawn)
    assert not first.equal(second)


def normalised(group: TorchProcessGroup) -> list[str]:
    told = []
    for model, device in (
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "mps"),
        (nn.Linear(2, 2), "cuda:1"),
    ):
        for ask in (lambda model=model: group.normed(model), lambda device=device: group.take_device(device)):
            try:
                ask()
            except ConfigError as error:
                told.append(str(error))
    return told


def test_what_several_cannot_share_is_refused_with_the_reason() -> None:
    norm, mps, one_gpu = each(2, in_group, normalised)[1]
    assert "which 2 processes can share on GPUs only" in norm
    assert "serves one process; say cpu" in mps
    assert "is one GPU, and each process needs its own; say cuda" in one_gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    group = object.__new__(TorchProcessGroup)
    group.place = Rank(1, 2, 1, 2)
    with pytest.raises(ConfigError, match="2 processes on a machine with 0 GPUs"):
        group.take_device("cuda")
    assert group.threads(5) == 2
    assert group.threads(1) == 1


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name, value in zip(variables, ("1", "4", "1", "2", "here", "1")):
        monkeypatch.setenv(name, value)


def test_a_group_must_be_joined_under_torchrun(launched: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_of_process() == Rank(1, 4, 1, 2)
    with pytest.raises(ConfigError, match="only by the command line"):
        distributed.group()
    monkeypatch.delenv("LOCAL_RANK")
    assert rank_of_process() == Rank(0, 1, 0, 1)
    assert distributed.group() is ALONE


@pytest.mark.slow
def test_one_process_never_imports_what_joins_several() -> None:
    code = (
        "import sys, stresslens.study.pipeline; sys.exit('stresslens.training.process_group' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_alone_everything_is_as_it_was() -> None:
    rows = torch.rand(3)
    assert ALONE.gather(rows) is rows
    assert ALONE.agreed(signal.SIGINT, False) == (signal.SIGINT, False)
    assert ALONE.part == (0, 1)
    assert not torch.distributed.is_initialized()
