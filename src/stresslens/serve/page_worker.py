"""The jobs of the page, for its worker process: one after the other, each until nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from stresslens.core.errors import StresslensError
from stresslens.serve.classification import ServedRuns
from stresslens.serve.counts import Counts
from stresslens.serve.limits import Refused
from stresslens.serve.page_process import STOP, Ended, Job, answer_page
from stresslens.serve.processes import Died, WorkerProcess

WAITING = 32
"""Jobs that may wait."""
SILENCE = 120
"""Seconds without a part after which the process is replaced: a map of a large network takes long."""
DIED = "The process behind this page has ended, and starts anew. Please try again."


class _Asked:
    """A job, its parts as they come, and whether somebody waits for them."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.parts: asyncio.Queue[dict[str, Any] | Ended | Refused] = asyncio.Queue()
        self.wanted = True
        self.process: WorkerProcess | None = None
        """The process that works on it."""


class PageWorker:
    """The process is started by the first job, and again after it has died."""

    def __init__(self, served: ServedRuns, counts: Counts) -> None:
        self.served, self.counts = served, counts
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._process: WorkerProcess | None = None
        self._described: dict[str, Any] = {}

    async def described(self) -> dict[str, Any]:
        """What the process says of the runs. Raises Refused."""
        async with self._turn:
            await self._started()
            return self._described

    async def parts(self, job: Job) -> AsyncIterator[dict[str, Any]]:
        """The parts of a job as they come. Closing the iterator stops the job. Raises Refused for one that
        cannot be done, and where too many wait."""
        if len(self._tasks) >= WAITING:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{len(self._tasks)} requests of the page wait; try again later",
                Retry_After="2",
            )
        asked = _Asked(job)
        task = asyncio.create_task(self._answer(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while not isinstance(part := await asked.parts.get(), Ended | Refused):
                yield part
        finally:
            asked.wanted = False
            if asked.process is not None:
                with suppress(Died):
                    asked.process.send(STOP)
        if isinstance(part, Refused):
            raise part
        if part.why:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, part.why)

    async def _answer(self, asked: _Asked) -> None:
        """Puts the parts of a job into its queue, and at last how it ended."""
        async with self._turn:
            if not asked.wanted:
                return
            try:
                process = await self._started()
                asked.process = process
                await asyncio.to_thread(process.send, asked.job)
                message = await asyncio.to_thread(process.received, SILENCE)
                while not isinstance(message, Ended):
                    asked.parts.put_nowait(message)
                    message = await asyncio.to_thread(process.received, SILENCE)
            except Refused as error:
                message = error
            except Died:
                self.counts.restarts.inc()
                await asyncio.to_thread(self.close)
                message = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, DIED)
            finally:
                asked.process = None
            asked.parts.put_nowait(message)

    async def _started(self) -> WorkerProcess:
        if self._process is None:
            started = await asyncio.to_thread(WorkerProcess, answer_page, self.served)
            try:
                self._described = await asyncio.to_thread(started.opened)
            except StresslensError as error:
                await asyncio.to_thread(started.end)
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
            self._process = started
        return self._process

    def close(self) -> None:
        """Ends the process, in whatever it does."""
        ending, self._process = self._process, None
        if ending is not None:
            ending.process.kill()
            ending.end()
