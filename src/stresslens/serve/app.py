"""The service: `POST /predict` and what belongs to it, as an ASGI application."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.spelling import closest
from stresslens.core.version import __version__
from stresslens.serve.batching import Batcher
from stresslens.serve.classification import COVERAGE, Question, ServedRun
from stresslens.serve.counts import Counts
from stresslens.serve.limits import STATIC, Limits, Refused
from stresslens.serve.openapi import openapi
from stresslens.serve.pictures import pictures_of

LOG = logging.getLogger("stresslens.serve")
MOST_CLASSES = 100
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Service:
    """What the requests are answered with. Without a `token` everybody who reaches the server may ask."""

    batcher: Batcher
    counts: Counts
    limits: Limits
    token: str | None = None
    hosts: Sequence[str] | None = None
    """Names in the header Host that are answered; None for all. They keep web pages of other servers away,
    whose names a browser may be told to resolve to this machine."""

    @property
    def served(self) -> dict[str, ServedRun]:
        return self.batcher.served

    def run_named(self, name: str | None) -> str:
        """The name of a run that is served; the first without one. Raises Refused."""
        names = list(self.served)
        if name is None:
            return names[0]
        if name not in self.served:
            raise Refused(HTTPStatus.NOT_FOUND, f"run {name!r}: {closest(name, names)}")
        return name


def service_app(service: Service, routes: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The application: prediction, health, metrics, its description, and more `routes`. The workers are
    those of its `batcher`, which runs already; they end with the server."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.batcher.close()

    service.counts.watch("waiting_images", "Images that wait for the model.", lambda: service.batcher.waiting)
    service.counts.watch("workers", "Worker processes that are ready.", lambda: service.batcher.alive)
    app = Starlette(
        routes=[
            Route("/predict", _predict, methods=["POST"]),
            Route("/health", _health),
            Route("/metrics", _metrics),
            Route("/openapi.json", _openapi),
            *routes,
        ],
        exception_handlers={
            Refused: _refused,
            StresslensError: _failed,
            HTTPException: _not_found,
            Exception: _unexpected,
        },
        lifespan=lifespan,
    )
    app.state.service = service
    return _Guard(app, service)


async def _predict(request: Request) -> Response:
    service: Service = request.app.state.service
    question = _question(service, request)
    pictures = await pictures_of(request, service.limits)
    try:
        answers = await service.batcher.ask(question, pictures)
    except ConfigError as error:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    facts = service.served[question.run].facts
    model = json.dumps({"run": facts.run, "fingerprint": facts.fingerprint, "version": facts.version})
    readable = any(b'"unreadable": ' not in each for each in answers)
    body = b'{"model": %s, "predictions": [%s]}' % (model.encode(), b", ".join(answers))
    status = HTTPStatus.OK if readable else HTTPStatus.UNPROCESSABLE_ENTITY
    return Response(body, status, media_type="application/json")


def _question(service: Service, request: Request) -> Question:
    """What the address of a request asks: run, top, coverage, wrong_at_most. Raises Refused."""
    given = dict(request.query_params)
    run = service.run_named(given.pop("run", None))
    top = _number(given.pop("top", "5"), "top", int)
    if not 1 <= top <= MOST_CLASSES:
        raise _bad(f"top is {top}; expected 1 to {MOST_CLASSES}")
    shares: dict[str, float] = {}
    for name in ("coverage", "wrong_at_most"):
        if name in given:
            shares[name] = _number(given.pop(name), name, float)
            if not 0 < shares[name] < 1:
                raise _bad(f"{name} is {shares[name]:g}; expected a share between 0 and 1, such as 0.95")
    if given:
        known = ["run", "top", "coverage", "wrong_at_most"]
        raise _bad(f"{next(iter(given))!r}: {closest(next(iter(given)), known)}")
    if not shares and service.served[run].no_sets is None:
        shares["coverage"] = COVERAGE
    return Question(run, top, **shares)


def _number(text: str, name: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise _bad(f"{name} is {text!r}; expected a number") from None


def _bad(why: str) -> Refused:
    return Refused(HTTPStatus.BAD_REQUEST, why)


async def _health(request: Request) -> Response:
    service: Service = request.app.state.service
    ready = service.batcher.alive > 0
    runs = [
        {
            "name": name,
            "run": each.facts.run,
            "fingerprint": each.facts.fingerprint,
            "version": each.facts.version,
            "classes": each.facts.classes,
            "shape": each.facts.shape,
            "calibrated_on": each.facts.calibrated_on,
            "ood_rate": each.ood_rate,
            "no_sets": each.no_sets,
        }
        for name, each in service.served.items()
    ]
    values = {
        "status": "ok" if ready else "starting",
        "version": __version__,
        "workers": service.batcher.alive,
        "waiting": service.batcher.waiting,
        "runs": runs,
    }
    return JSONResponse(values, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


async def _metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    return Response(service.counts.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _openapi(request: Request) -> Response:
    service: Service = request.app.state.service
    return JSONResponse(openapi(list(service.served), service.limits, has_token=service.token is not None))


def _told(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": why, "status": int(status)}, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _told(error.status, error.why, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return _told(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _told(404, "there is nothing here; /openapi.json says what there is")
    return _told(error.status_code, error.detail, dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> Response:
    return _told(500, f"unexpected: {type(error).__name__}; please report it")


class _Guard:
    """Before each request: its host, its origin and its token; after it: what was answered, and when.

    A browser sends the origin of a page with a request; one of another server is refused.
    """

    OPEN = ("/health", *STATIC)

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

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
        path = scope["path"] if scope["path"] in KNOWN else "other"
        counts = self.service.counts
        counts.requests.labels(path, str(status)).inc()
        counts.seconds.labels(path).observe(time.perf_counter() - started)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.service.hosts is not None and name not in self.service.hosts:
            return _told(HTTPStatus.MISDIRECTED_REQUEST, f"this server is not {name!r}")
        origin = request.headers.get("origin")
        if origin not in (None, f"{request.url.scheme}://{host}"):
            return _told(HTTPStatus.FORBIDDEN, "pages of other servers may not ask this one")
        token, given = self.service.token, request.headers.get("authorization", "")
        if token is None or request.url.path in self.OPEN:
            return None
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return _told(
                HTTPStatus.UNAUTHORIZED,
                "give the token: Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )
        return None


PAGE = ("/page/look", "/page/attack", "/page/images", "/page/runs")
KNOWN = ("/predict", "/health", "/metrics", "/openapi.json", *STATIC, *PAGE)
