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

from stresslens.core.errors import ConfigError
from stresslens.serve.app import Service, service_app
from stresslens.serve.batching import Batcher
from stresslens.serve.classification import ServedRuns
from stresslens.serve.counts import Counts
from stresslens.serve.limits import Limits
from stresslens.serve.page import page_routes
from stresslens.serve.page_worker import PageWorker

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
SEED = re.compile(r"seed-\d+")
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
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self.port))
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
    ready: Callable[[str], None],
) -> None:
    """Serves runs until the process is told to stop (SIGTERM, Ctrl-C); requests that are open then are
    answered. `ready` is called with the server's address. With `page` there is a page for people at /.

    Raises ConfigError and what `open_predictor` raises, before anything is served."""
    runs = ServedRuns(names_of_runs(paths), trust, threads, limits.pixels)
    listening = address.bound()
    counts = Counts()
    batcher = Batcher(runs, limits, counts, workers)
    with listening:
        service = Service(batcher, counts, limits, token, _hosts(address))
        asyncio.run(_serve(listening, service, page, ready))


async def _serve(
    listening: socket.socket, service: Service, page: bool, ready: Callable[[str], None]
) -> None:
    batcher = service.batcher
    batcher.start(asyncio.get_running_loop())
    worker = PageWorker(batcher.runs, service.counts)
    config = uvicorn.Config(
        service_app(service, page_routes(worker) if page else ()),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
        limit_concurrency=None,
    )
    host, port = listening.getsockname()[:2]
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        await _Server(config).serve([listening])
    finally:
        worker.close()


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


def _hosts(address: Address) -> tuple[str, ...] | None:
    return LOOPBACK if address.is_local else None


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
