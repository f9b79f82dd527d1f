"""A worker process of the service, and the connection to it."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import timeit
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from stresslens.core.devices import keep_memory
from stresslens.core.errors import StresslensError
from stresslens.evaluation.predictor import Predictor

START = 120
"""Seconds that a worker may take to open its runs."""
TRIED, GAIN = 16, 1.4
"""Images of the batch that is timed, and how much faster several threads must be."""


class Died(Exception):
    """A worker has ended, or has not answered in time."""


class WorkerProcess:
    """A process that runs `target(connection, *arguments)`. Its first message is what it opened, or the
    StresslensError why it could not."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection: Connection
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=target, args=(other, *arguments), daemon=True, name="stresslens worker"
        )
        self.process.start()
        other.close()

    def opened(self) -> Any:
        """What was opened, once it is. Raises StresslensError."""
        try:
            found = self.received(START)
        except Died:
            raise StresslensError(
                "the process that opens the runs has died; is there enough memory?"
            ) from None
        if isinstance(found, StresslensError):
            raise found
        return found

    def send(self, message: Any) -> None:
        """Raises Died."""
        try:
            self.connection.send(message)
        except OSError as error:
            raise Died from error

    def received(self, seconds: float) -> Any:
        """The next message. Raises Died where none comes in time."""
        try:
            if not self.connection.poll(seconds):
                raise Died
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise Died from error

    def end(self) -> None:
        """Ends the process, at once if it does not end itself."""
        self.connection.close()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def begin_worker() -> None:
    """The process leaves Ctrl-C to the server, which ends it, and keeps freed memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_memory()


def set_threads(asked: int | None, predictors: Iterable[Predictor]) -> None:
    """Torch computes with as many threads as asked for. Otherwise with all, where a batch then takes much
    less time than with one; if not, the others are left to the process that answers requests."""
    several = torch.get_num_threads()
    if asked is None and several > 1:
        spent = dict.fromkeys((several, 1), 0.0)
        for predictor in predictors:
            x = torch.zeros(TRIED, *predictor.facts.shape)
            for threads in spent:
                torch.set_num_threads(threads)
                predictor.answer(x)
                spent[threads] += min(timeit.repeat(partial(predictor.answer, x), number=1, repeat=3))
        asked = several if spent[several] * GAIN < spent[1] else 1
    torch.set_num_threads(asked or several)


def forget_garbage() -> None:
    """Leaves all objects that are there now out of garbage collection, which otherwise looks through all of
    torch's again and again, and stops the process for a tenth of a second."""
    gc.collect()
    gc.freeze()
