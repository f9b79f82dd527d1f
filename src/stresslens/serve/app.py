"""The service: `POST /predict` and what belongs to it, as an ASGI application."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest
from stresslens.core.version import __version__
from stresslens.serve.batches import Batcher
from stresslens.serve.classification import COVERAGE, BatchQuestion, ServedRun
from stresslens.serve.counts import Counts
from stresslens.serve.guard import Access, guarded
from stresslens.serve.limits import Limits, Refused, bad_request
from stresslens.serve.openapi import openapi
from stresslens.serve.pictures import pictures_of

MOST_CLASSES = 100


@dataclass(frozen=True)
class Service:
    """What the requests are answered with."""

    batcher: Batcher
    counts: Counts
    limits: Limits
    access: Access

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
    own = [
        Route("/predict", _predict, methods=["POST"]),
        Route("/health", _health),
        Route("/metrics", _metrics),
        Route("/openapi.json", _openapi),
    ]
    return guarded([*own, *routes], service.access, service.counts, lifespan, service=service)


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


def _question(service: Service, request: Request) -> BatchQuestion:
    """What the address of a request asks: run, top, coverage, wrong_at_most. Raises Refused."""
    given = dict(request.query_params)
    run = service.run_named(given.pop("run", None))
    top = _number(given.pop("top", "5"), "top", int)
    if not 1 <= top <= MOST_CLASSES:
        raise bad_request(f"top is {top}; expected 1 to {MOST_CLASSES}")
    shares: dict[str, float] = {}
    for name in ("coverage", "wrong_at_most"):
        if name in given:
            shares[name] = _number(given.pop(name), name, float)
            if not 0 < shares[name] < 1:
                raise bad_request(
                    f"{name} is {shares[name]:g}; expected a share between 0 and 1, such as 0.95"
                )
    if given:
        known = ["run", "top", "coverage", "wrong_at_most"]
        raise bad_request(f"{next(iter(given))!r}: {closest(next(iter(given)), known)}")
    if service.served[run].no_sets is None:
        shares.setdefault("coverage", COVERAGE)
    return BatchQuestion(run, top, **shares)


def _number(text: str, name: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise bad_request(f"{name} is {text!r}; expected a number") from None


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
    return JSONResponse(
        openapi(list(service.served), service.limits, has_token=service.access.token is not None)
    )
