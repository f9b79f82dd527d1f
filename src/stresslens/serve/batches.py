"""Pictures of many requests, put together into batches for the worker processes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

from stresslens.core.errors import StresslensError
from stresslens.evaluation.classify_files import BATCH, Upload
from stresslens.serve.classification import BatchQuestion, ServedRun, ServedRuns, classify_batches
from stresslens.serve.counts import Counts
from stresslens.serve.limits import Limits, Refused
from stresslens.serve.processes import Died, WorkerProcess

DEATHS = 2
"""A picture with which a worker has died so often, alone, is given up."""


@dataclass(eq=False)
class _Waiting:
    """A picture that waits for its answer, until `deadline` (of `time.monotonic`)."""

    question: BatchQuestion
    picture: Upload
    answer: asyncio.Future[bytes]
    deadline: float
    deaths: int = 0


@dataclass
class Batcher:
    """Sends the pictures that wait to worker processes: all of one question, up to `BATCH`, as soon as a
    worker is free, so a single request never waits for others.

    A worker that dies or hangs is replaced. Its pictures are asked again, one by one, so a picture that
    breaks the process breaks no other request.
    """

    runs: ServedRuns
    limits: Limits
    counts: Counts
    workers: int = 1
    served: dict[str, ServedRun] = field(init=False)
    _queue: deque[_Waiting] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closing: bool = False
    _threads: list[threading.Thread] = field(default_factory=list)
    _alive: int = 0

    def start(self) -> None:
        """Starts the workers. Raises StresslensError where a run cannot be opened."""
        first = [WorkerProcess(classify_batches, self.runs) for _ in range(self.workers)]
        try:
            for worker in first:
                self.served = worker.opened()
        except BaseException:
            for worker in first:
                worker.end()
            raise
        for worker in first:
            thread = threading.Thread(target=self._serve, args=(worker,), daemon=True, name="batches")
            self._threads.append(thread)
            thread.start()
        self._alive = len(first)

    @property
    def alive(self) -> int:
        """The workers that are ready."""
        return self._alive

    @property
    def waiting(self) -> int:
        """The pictures that wait."""
        return len(self._queue)

    async def ask(self, question: BatchQuestion, pictures: Sequence[Upload]) -> list[bytes]:
        """The answers as JSON, in order. Raises Refused if too many pictures wait already, and if the time
        is up; ConfigError for a question that the run cannot answer."""
        deadline, loop = time.monotonic() + self.limits.seconds, asyncio.get_running_loop()
        items = [_Waiting(question, each, loop.create_future(), deadline) for each in pictures]
        with self._changed:
            if self._closing:
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping")
            if len(self._queue) + len(items) > self.limits.waiting:
                raise Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"{len(self._queue)} images wait, and at most {self.limits.waiting} may; try again later",
                    Retry_After="1",
                )
            self._queue.extend(items)
            self._changed.notify()
        try:
            async with asyncio.timeout(self.limits.seconds):
                return [await each.answer for each in items]
        except TimeoutError:
            raise Refused(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"no answer within {self.limits.seconds} s; the server has too much to do",
            ) from None
        finally:
            for each in items:
                each.answer.cancel()

    def close(self) -> None:
        """Ends the workers once they have answered what waits."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: WorkerProcess) -> None:
        """The thread of one worker: sends it a batch at a time."""
        while batch := self._next_batch():
            question = batch[0].question
            try:
                worker.send((question, [each.picture for each in batch]))
                answers: list[bytes] | StresslensError = worker.received(self.limits.seconds)
            except Died:
                self._alive -= 1
                worker.end()
                self.counts.restarts.inc()
                self._ask_again(batch)
                worker = self._started_again()
                continue
            self.counts.batches.observe(len(batch))
            self._tell(batch, answers)
        worker.end()

    def _next_batch(self) -> list[_Waiting]:
        """The next pictures of one question; none when the server stops and nothing waits."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._closing)
                batch: list[_Waiting] = []
                kept: deque[_Waiting] = deque()
                while self._queue and len(batch) < BATCH:
                    item = self._queue.popleft()
                    if item.answer.cancelled() or item.deadline < time.monotonic():
                        continue
                    alone = item.deaths or (batch and batch[0].deaths)
                    if batch and (item.question != batch[0].question or alone):
                        kept.append(item)
                    else:
                        batch.append(item)
                self._queue.extendleft(reversed(kept))
                if batch or self._closing:
                    return batch

    def _ask_again(self, batch: Sequence[_Waiting]) -> None:
        for item in batch:
            item.deaths += 1
        hopeless = [each for each in batch if each.deaths > DEATHS]
        self._tell(hopeless, StresslensError("the process that reads images has died of this image, twice"))
        with self._changed:
            self._queue.extendleft(reversed([each for each in batch if each.deaths <= DEATHS]))
            self._changed.notify()

    def _started_again(self) -> WorkerProcess:
        pause = 0.1
        while True:
            worker = WorkerProcess(classify_batches, self.runs)
            try:
                worker.opened()
            except StresslensError:  # its files have changed, or memory is short
                worker.end()
                if self._closing:
                    return worker
                time.sleep(pause := min(2 * pause, 10))
                continue
            self._alive += 1
            return worker

    def _tell(self, batch: Sequence[_Waiting], answers: list[bytes] | StresslensError) -> None:
        def tell() -> None:
            for number, item in enumerate(batch):
                if item.answer.done():
                    continue
                if isinstance(answers, StresslensError):
                    item.answer.set_exception(answers)
                else:
                    item.answer.set_result(answers[number])

        if batch:
            with suppress(RuntimeError):  # the loop has ended: nobody waits
                batch[0].answer.get_loop().call_soon_threadsafe(tell)
