"""Model views in a run's page: the images, points and lines that views have saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from stresslens.charts.chart import Chart
from stresslens.charts.dot_charts import map_chart
from stresslens.charts.line_charts import Series, line_chart
from stresslens.core.files import UnreadableRun
from stresslens.core.format import plugin_text
from stresslens.core.thumbnails import image_address
from stresslens.explanation.view_file import GridPart, LinesPart, PointsPart, ViewFile
from stresslens.report.load import Run

BYTES = 900_000
"""Largest size of all grids of a page, as text."""


@dataclass(frozen=True)
class Part:
    """A part of a view: a chart, or a grid of images; None if its file is missing or the page is
    full."""

    title: str
    shown: Markup | Chart | None
    chart: bool


@dataclass(frozen=True)
class View:
    name: str
    said: Sequence[str]
    parts: Sequence[Part]
    folder: str


def run_views(run: Run) -> list[View]:
    """Every view of a run that can be read, in the order of their names."""
    views, room = [], BYTES
    for file in sorted((run.folder.path / "views").glob("*/result.json")):
        try:
            result = ViewFile.read(file)
        except UnreadableRun:
            continue
        parts = []
        for part in result.parts:
            shown = _grid(file.parent, part, room) if isinstance(part, GridPart) else _chart(part)
            room -= len(shown) if isinstance(shown, Markup) else 0
            parts.append(Part(part.title, shown, not isinstance(part, GridPart)))
        views.append(View(plugin_text(result.view, result.options), result.said, parts, file.parent.name))
    return views


def _grid(folder: Path, part: GridPart, room: int) -> Markup | None:
    path = folder / part.file
    try:
        if (
            path.resolve().parent != folder.resolve()
            or path.suffix != ".svg"
            or path.stat().st_size * 4 / 3 > room
        ):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    address = image_address(content, "svg+xml")
    return Markup('<img class="grid" alt="{}" src="{}">').format(part.title, address)


def _chart(part: PointsPart | LinesPart) -> Chart:
    if isinstance(part, LinesPart):
        series = [Series(name, list(line), k) for k, (name, line) in enumerate(part.lines.items())]
        return line_chart(series, title=part.title, x_label=part.x_label, y_label=part.y_label)
    return map_chart(part.places, part.groups, part.wrong, title=part.title)
