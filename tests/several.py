"""Runs a function in several processes that stand to each other as those that torchrun starts; for
the tests."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from stresslens.training.process_group import joined
from stresslens.training.task import Task

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        *("stresslens.cli.main", "stresslens.study.pipeline", "stresslens.report.page", "torch._dynamo"),
        *("sklearn.datasets", "sklearn.model_selection", "scipy.special"),
    ]
)
"""Starts processes that have imported already what a training imports, `torch._dynamo` for the
first optimizer among it."""
SECONDS = 60


@dataclass
class Started:
    """Processes under way, and the store that torchrun would hold for them."""

    processes: list[BaseProcess]
    answers: list[Connection]
    store: dist.TCPStore

    def answer(self, rank: int) -> Any:
        """What the function returned there."""
        assert self.answers[rank].poll(SECONDS), f"process {rank} does not answer"
        return pickle.loads(self.answers[rank].recv_bytes())

    def codes(self) -> list[int | None]:
        """Their exit codes, once all have ended."""
        for process in self.processes:
            process.join(SECONDS)
        return [process.exitcode for process in self.processes]


def start(count: int, function: Callable[..., Any], *args: Any) -> Started:
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    started = Started([], [], store)
    for rank in range(count):
        ours, theirs = PROCESSES.Pipe(duplex=False)
        place = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count}
        server = {"MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
        process = PROCESSES.Process(target=_begin, args=(place | server, theirs, function, args))
        process.start()
        theirs.close()
        started.processes.append(process)
        started.answers.append(ours)
    return started


def each(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What the function returns in each of the processes, by rank."""
    started = start(count, function, *args)
    answers = [started.answer(rank) for rank in range(count)]
    assert started.codes() == [0] * count
    return answers


def _begin(
    environment: dict[str, Any], answer: Connection, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    answer.send_bytes(
        pickle.dumps(function(*args))
    )  # not `send`, which would leave tensors in memory that goes with the process


def in_group(function: Callable[..., Any], *args: Any) -> Any:
    """Calls the function with the group of this process, met as for a training."""
    with joined() as group:
        if group.place.rank == 0:
            group.call(None)
        else:
            group.order()
            group.meet()
        return function(group, *args)


def command(folder: Path, *words: str) -> None:
    """What `torchrun … -m stresslens WORDS` does in each process; what it says goes to `folder/said-RANK`."""
    from stresslens.__main__ import main

    os.chdir(folder)
    sys.argv = ["stresslens", *words]
    with (folder / f"said-{os.environ['RANK']}").open("w") as said:
        sys.stdout = sys.stderr = said
        main()


def typed(folder: Path, *words: str) -> BaseProcess:
    """`stresslens WORDS` as a terminal starts it: in the folder, at the head of a group of processes
    of its own; what it says goes to `folder/out` and `folder/err`."""
    process = PROCESSES.Process(target=_typed, args=(folder, words))
    process.start()
    return process


def _typed(folder: Path, words: tuple[str, ...]) -> None:
    from stresslens.__main__ import main

    os.setsid()
    os.chdir(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["stresslens", *words]
    main()


def carry_out(*tasks: Task) -> None:
    """Tasks carried out by all processes, as the command does; exits with its codes."""
    from stresslens.cli.main import main
    from stresslens.study import stages
    from stresslens.training import distributed as processes

    if int(os.environ["RANK"]) > 0:
        main(processes.follow)
    with processes.leading():
        main(lambda: [stages.carry_out(task) for task in tasks])
