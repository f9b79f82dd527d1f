"""The page at /: its files, and what its script asks the server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any, Literal, cast, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from stresslens.config import registry
from stresslens.core.ball import check_radius
from stresslens.core.errors import ConfigError
from stresslens.core.page_files import page_file
from stresslens.core.spelling import closest
from stresslens.serve.headers import page_headers
from stresslens.serve.limits import Refused, bad_request
from stresslens.serve.own_images import FILTERS
from stresslens.serve.page_process import Job, Subject
from stresslens.serve.page_worker import PageWorker
from stresslens.serve.pictures import body_of

STATIC = ("/", "/page/page.css", "/page/page.js")
"""The files of the page. They are the same for everybody, and need no token."""
SHEETS = (("core", "colours.css"), ("report", "templates/report.css"), ("serve", "page/page.css"))
HEADERS = page_headers()
SEVERITIES = range(1, 6)
MOST_CAPTIONS, LONGEST_CAPTION = 20, 200
PageNorm = Literal["linf", "l2"]


def page_routes(worker: PageWorker) -> list[BaseRoute]:
    """The routes of the page. What is below /page/ belongs to it, and may change with any version."""
    answers = _Answers(worker)
    return [
        Route("/", _index),
        Route("/page/page.css", _style),
        Route("/page/page.js", _script),
        Route("/page/runs", answers.runs),
        Route("/page/images", answers.images),
        Route("/page/look", answers.look, methods=["POST"]),
        Route("/page/attack", answers.attack, methods=["POST"]),
    ]


async def _index(request: Request) -> Response:
    return Response(page_file("serve", "page/index.html"), headers=HEADERS, media_type="text/html")


async def _style(request: Request) -> Response:
    return Response("\n".join(page_file(*each) for each in SHEETS), headers=HEADERS, media_type="text/css")


async def _script(request: Request) -> Response:
    return Response(page_file("serve", "page/page.js"), headers=HEADERS, media_type="text/javascript")


class _Answers:
    """What the script asks. Options are in the address; a picture is the body."""

    def __init__(self, worker: PageWorker) -> None:
        self.worker = worker

    async def runs(self, request: Request) -> Response:
        return JSONResponse(await self.worker.described(), headers=HEADERS)

    async def images(self, request: Request) -> Response:
        which = _one_of(FILTERS, request.query_params.get("which", "all"), "which")
        arguments = {
            "name": self._names(request)[0],
            "which": which,
            "of_class": request.query_params.get("class", ""),
            "number": _whole(request.query_params.get("page", "0"), "page"),
        }
        parts = [part async for part in self.worker.parts(Job("images", arguments))]
        return JSONResponse(parts[0], headers=HEADERS)

    async def look(self, request: Request) -> Response:
        arguments = {
            "subject": await self._subject(request),
            "names": self._names(request),
            "explainer": request.query_params.get("explainer", ""),
            "captions": _captions(request),
        }
        return await self._streamed(Job("look", arguments))

    async def attack(self, request: Request) -> Response:
        norm = cast(PageNorm, _one_of(get_args(PageNorm), request.query_params.get("norm", "linf"), "norm"))
        try:
            radius = float(request.query_params.get("radius", "0.1"))
            check_radius(norm, radius)
        except (ValueError, ConfigError) as error:
            raise bad_request(f"radius: {error}") from None
        arguments = {
            "subject": await self._subject(request),
            "names": self._names(request),
            "norm": norm,
            "radius": radius,
            "target": request.query_params.get("target", ""),
            "captions": _captions(request),
        }
        return await self._streamed(Job("attack", arguments))

    def _names(self, request: Request) -> list[str]:
        """The runs that are asked: those that are named, or all."""
        service = request.app.state.service
        named = request.query_params.getlist("run")
        return [service.run_named(name) for name in named] or list(service.served)

    async def _subject(self, request: Request) -> Subject:
        """The picture of a request. Raises Refused where there is none."""
        service, given = request.app.state.service, request.query_params
        corruptions = {}
        for text in given.getlist("corruption"):
            name, _, severity = text.partition(":")
            _one_of(registry.names("corruptions"), name, "corruption")
            corruptions[name] = _whole(severity, f"the severity of {name}")
            if corruptions[name] not in SEVERITIES:
                raise bad_request(f"the severity of {name} is {severity}; expected 1 to {SEVERITIES[-1]}")
        if "image" in given:
            own = (service.run_named(given.get("of")), _whole(given["image"], "image"))
            return Subject(own=own, corruptions=corruptions)
        content = await body_of(request, service.limits)
        if not content:
            raise bad_request("there is no picture in the request")
        return Subject(content, corruptions=corruptions)

    async def _streamed(self, job: Job) -> Response:
        """The parts of a job, one JSON document a line, as they come. What goes wrong before the first is
        an error of the request, and later a last line."""
        parts = self.worker.parts(job)
        first = await anext(parts, None)
        if first is None:
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "there is no answer")

        async def lines() -> AsyncIterator[bytes]:
            try:
                yield _line(first)
                async for part in parts:
                    yield _line(part)
            except Refused as error:
                yield _line({"error": error.why})
            finally:
                await parts.aclose()  # type: ignore[attr-defined]

        return StreamingResponse(lines(), headers=HEADERS, media_type="application/x-ndjson")


def _line(part: dict[str, Any]) -> bytes:
    return json.dumps(part, ensure_ascii=False).encode() + b"\n"


def _captions(request: Request) -> tuple[str, ...]:
    found = tuple(request.query_params.getlist("caption"))
    if len(found) > MOST_CAPTIONS or any(len(each) > LONGEST_CAPTION for each in found):
        raise bad_request(f"give at most {MOST_CAPTIONS} captions of at most {LONGEST_CAPTION} characters")
    return found


def _one_of(known: Any, given: str, what: str) -> str:
    if given not in known:
        raise bad_request(f"{what} {given!r}: {closest(given, list(known))}")
    return given


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise bad_request(f"{what} is {text!r}; expected a whole number")
    return int(text)
