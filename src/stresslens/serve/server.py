"""The HTTP server around the application: socket, names of runs, and the end."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM

import uvicorn
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from stresslens.core.errors import ConfigError
from stresslens.serve.app import Service, service_app
from stresslens.serve.batches import Batcher
from stresslens.serve.classification import ServedRuns
from stresslens.serve.counts import Counts
from stresslens.serve.guard import Access, guarded
from stresslens.serve.limits import Limits
from stresslens.serve.page import STATIC, page_routes
from stresslens.serve.page_worker import PageWorker
from stresslens.serve.processes import forget_garbage
from stresslens.serve.watch_page import WATCH_OPEN, watch_routes

OPEN = ("/health", *STATIC, *WATCH_OPEN)
"""What needs no token."""
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
SEED = re.compile(r"seed-\d+")
BACKLOG = 2048
"""Connections that may wait to be accepted."""
DRAIN = 30
"""Seconds that open requests have when the server is stopped."""


@dataclass(frozen=True)
class Address:
    """Where the server listens. Port 0: one that is free."""

    host: str = "127.0.0.1"
    port: int = 8000

    def bound(self) -> socket.socket:
        """A socket that listens there. Raises ConfigError if it cannot."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # Without its protocol asyncio leaves Nagle's algorithm on, which costs 40 ms an answer.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self.port))
            listening.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            listening.close()
            why = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"the server cannot listen on {self.host} port {self.port}: {why}; --port 0 takes a free one"
            ) from None
        return listening

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK


def serve_runs(
    paths: Sequence[Path],
    address: Address,
    *,
    limits: Limits,
    workers: int = 1,
    threads: int | None = None,
    trust: bool = False,
    token: str | None = None,
    page: bool = True,
    watch: Path | None = None,
    ready: Callable[[str], None],
) -> None:
    """Serves runs until the process is told to stop (SIGTERM, Ctrl-C); requests that are open then are
    answered. With `page` there is a page for people at /. With `watch`, a folder of studies, there is a page
    of them too, or alone without runs. `ready` is called with the server's address.

    Raises ConfigError and what `open_predictor` raises, before anything is served."""
    counts = Counts()
    access = Access(token, LOOPBACK if address.is_local else None, OPEN)
    routes: list[BaseRoute] = [] if watch is None else list(watch_routes(watch))
    with address.bound() as listening:
        if not paths:
            first = Route("/", lambda _: RedirectResponse("/watch"))
            _serve(listening, guarded([first, *routes], access, counts), ready)
            return
        runs = ServedRuns(names_of_runs(paths), trust, threads, limits.pixels)
        batcher, worker = Batcher(runs, limits, counts, workers), PageWorker(runs, counts)
        batcher.start()
        routes += page_routes(worker) if page else []
        try:
            app = service_app(Service(batcher, counts, limits, access), routes)
            _serve(listening, app, ready)
        finally:
            worker.close()


def _serve(listening: socket.socket, app: ASGIApp, ready: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
    )
    host, port = listening.getsockname()[:2]
    forget_garbage()
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_Server(config).serve([listening]))


class _Server(uvicorn.Server):
    """A server that ends as usual after a signal; uvicorn's own raises the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (SIGINT, SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def names_of_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """The runs by the names that requests give: the shortest ends of their paths that differ. Raises
    ConfigError for a run that is given twice."""
    parts = {path: path.resolve().parts for path in paths}
    longest = max(map(len, parts.values()))
    for length in range(1, longest + 1):
        names = {"/".join(each[-length:]): path for path, each in parts.items()}
        if len(names) == len(paths) and not any(SEED.fullmatch(name) for name in names):
            return names
    raise ConfigError("a run is given twice: " + ", ".join(map(str, paths)))
