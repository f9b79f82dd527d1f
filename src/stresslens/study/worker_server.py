"""How worker processes start: forked from a server of the command, or spawned."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import BaseContext

IMPORTED = "stresslens.study.executors"
"""What the server imports, once for all workers."""

_started: list[BaseContext] = []


def start_worker_server() -> None:
    """Starts the server, on Linux. It imports what workers need while this process imports the same, and
    a worker is then a fork of it. For commands alone: one that lives longer may change its code, and the
    server keeps the old one.
    """
    if sys.platform == "linux" and not _started:
        from multiprocessing import forkserver

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([IMPORTED])
        forkserver.ensure_running()
        _started.append(context)


def worker_context() -> BaseContext:
    """The context of `multiprocessing` that starts workers."""
    return _started[0] if _started else multiprocessing.get_context("spawn")
