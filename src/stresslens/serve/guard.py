"""What stands before and behind each request: who may ask, what is refused and how, and what is counted."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stresslens.core.errors import StresslensError
from stresslens.serve.counts import Counts
from stresslens.serve.limits import Refused

LOG = logging.getLogger("stresslens.serve")
COOKIE = "stresslens_token"
"""Where a page in a browser keeps the token."""


@dataclass(frozen=True)
class Access:
    """Who may ask. Without a `token` everybody who reaches the server may; with one, the paths `open` need
    none.

    `hosts` are the names in the header Host that are answered; None for all. They keep web pages of other
    servers away, whose names a browser may be told to resolve to this machine.
    """

    token: str | None = None
    hosts: Sequence[str] | None = None
    open: tuple[str, ...] = ("/health",)


Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def guarded(
    routes: Sequence[BaseRoute],
    access: Access,
    counts: Counts,
    lifespan: Lifespan | None = None,
    **state: Any,
) -> ASGIApp:
    """An application of these routes behind a guard; every error is answered in JSON. `state` is that of the
    application, which requests see."""
    app = Starlette(
        routes=routes,
        exception_handlers={
            Refused: _refused,
            StresslensError: _failed,
            HTTPException: _not_found,
            Exception: _unexpected,
        },
        lifespan=lifespan,
    )
    for name, value in state.items():
        setattr(app.state, name, value)
    known = frozenset(route.path for route in routes if isinstance(route, Route) and "{" not in route.path)
    return _Guard(app, access, counts, known)


def told(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    """An error in JSON."""
    return JSONResponse({"error": why, "status": int(status)}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return told(error.status, error.why, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return told(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return told(404, "there is nothing here; /openapi.json says what there is")
    return told(error.status_code, error.detail, dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> Response:
    return told(500, f"unexpected: {type(error).__name__}; please report it")


class _Guard:
    """Looks at the host, the origin and the token of each request, and counts what was answered.

    A browser sends the origin of a page with a request; one of another server is refused.
    """

    def __init__(self, app: ASGIApp, access: Access, counts: Counts, known: frozenset[str]) -> None:
        self.app, self.access, self.counts, self.known = app, access, counts, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await (self._refusal(Request(scope)) or self.app)(scope, receive, noting)
        except Exception as error:  # Starlette has answered, and raises it again
            LOG.error("%s %s: %r", scope["method"], ascii(scope["path"]), error)
        path = scope["path"] if scope["path"] in self.known else "other"
        self.counts.requests.labels(path, str(status)).inc()
        self.counts.seconds.labels(path).observe(time.perf_counter() - started)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.access.hosts is not None and name not in self.access.hosts:
            return told(HTTPStatus.MISDIRECTED_REQUEST, f"this server is not {name!r}")
        origin = request.headers.get("origin")
        if origin not in (None, f"{request.url.scheme}://{host}"):
            return told(HTTPStatus.FORBIDDEN, "pages of other servers may not ask this one")
        if self.access.token is None or request.url.path in self.access.open:
            return None
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = request.cookies.get(COOKIE, "")
        if not hmac.compare_digest(given.encode(), self.access.token.encode()):
            return told(
                HTTPStatus.UNAUTHORIZED,
                "give the token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )
        return None
