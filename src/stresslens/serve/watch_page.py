"""The page of `stresslens serve --watch`: what `watched` finds, again and again."""

from __future__ import annotations

import time
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Template
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from stresslens.charts.chart import CHART_SHEETS
from stresslens.core.page_files import page_file, page_templates
from stresslens.report.page import PAGE
from stresslens.serve.guard import COOKIE
from stresslens.serve.headers import page_headers
from stresslens.serve.limits import Refused
from stresslens.serve.watched import SILENT, Known, WatchedStudy, state_of, watched_studies

SHEETS = (
    ("core", "colours.css"),
    *CHART_SHEETS,
    ("report", "templates/report.css"),
    ("serve", "page/watch.css"),
)
HEADERS = page_headers(styles="'self' 'unsafe-inline'")
"""Charts have their widths in attributes."""
WATCH_OPEN = ("/", "/watch", "/watch/page.css", "/watch/page.js")
"""What needs no token: it shows nothing of the folder."""
DRAWN = 3
"""Studies whose curves are drawn, besides those that grow."""


def watch_routes(root: Path) -> list[Route]:
    """The page of a folder's studies, its parts, and the reports below it."""
    root = root.resolve()
    shown: dict[str, Any] = {}
    known: Known = {}

    def page(_: Request) -> Response:
        text = _template("watch.html.j2").render(cookie=COOKIE)
        return HTMLResponse(text, headers=HEADERS)

    def studies(request: Request) -> Response:
        """The list as HTML, unless nothing has changed since the client's last one."""
        state = {"studies": state_of(root), "minute": int(time.time() / SILENT * 8)}
        if shown.get("state") != state:
            shown.update(state=state, version=str(time.time_ns()), html=_listed(watched_studies(root, known)))
        if request.query_params.get("have") == shown["version"]:
            return JSONResponse({"version": shown["version"]})
        return JSONResponse({"version": shown["version"], "folder": root.name, "html": shown["html"]})

    def report(request: Request) -> Response:
        """A report below the folder; nothing else of it can be read."""
        file = (root / request.path_params["path"]).resolve()
        if file.name != PAGE or not file.is_relative_to(root) or not file.is_file():
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such report")
        return FileResponse(file, media_type="text/html")

    return [
        Route("/watch", page),
        Route("/watch/studies", studies),
        Route("/watch/page.css", _style),
        Route("/watch/page.js", _script),
        Route("/reports/{path:path}", report),
    ]


def _listed(found: list[WatchedStudy | tuple[str, str]]) -> str:
    studies = [each for each in found if isinstance(each, WatchedStudy)]
    drawn = {id(each) for each in studies[:DRAWN]} | {id(each) for each in studies if each.growing}
    return _template("studies.html.j2").render(
        studies=studies, unreadable=[each for each in found if isinstance(each, tuple)], drawn=drawn, id=id
    )


@cache
def _template(name: str) -> Template:
    return page_templates("serve", "page").get_template(name)


async def _style(_: Request) -> Response:
    return Response("\n".join(page_file(*sheet) for sheet in SHEETS), headers=HEADERS, media_type="text/css")


async def _script(_: Request) -> Response:
    return Response(page_file("serve", "page/watch.js"), headers=HEADERS, media_type="text/javascript")
