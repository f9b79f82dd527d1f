"""A worker process of the service, and the connection to it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from stresslens.core.errors import StresslensError

START = 120
"""Seconds that a worker may take to open its runs."""


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
