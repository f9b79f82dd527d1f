"""What models have learned: the pictures, points and lines that views have left."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from markupsafe import Markup
from pydantic import Field, ValidationError

from stresslens.core.files import UnreadableRun, read_json
from stresslens.core.json_file import JsonFile
from stresslens.report.charts import Series, line_chart
from stresslens.report.dot_charts import map_chart
from stresslens.report.format import plugin_text
from stresslens.report.load import Run

BYTES = 900_000
"""Of all grids of a page, as text."""


class GridFile(JsonFile):
    kind: Literal["grid"]
    title: str
    file: str


class PointsFile(JsonFile):
    kind: Literal["points"]
    title: str
    places: Sequence[tuple[float, float]]
    groups: Sequence[str]
    wrong: Sequence[bool]


class LinesFile(JsonFile):
    kind: Literal["lines"]
    title: str
    x_label: str
    y_label: str
    lines: dict[str, Sequence[tuple[float, float]]]


class ViewFile(JsonFile):
    """views/<name>/result.json."""

    format: Literal[1]
    view: str
    options: dict[str, Any] = Field(default_factory=dict)
    said: Sequence[str] = ()
    parts: Sequence[Annotated[GridFile | PointsFile | LinesFile, Field(discriminator="kind")]] = ()


@dataclass(frozen=True)
class Part:
    """Something to look at: a chart, or a grid of pictures; None where its file is missing or the
    page is full."""

    title: str
    shown: Markup | None
    chart: bool


@dataclass(frozen=True)
class View:
    name: str
    said: Sequence[str]
    parts: Sequence[Part]
    folder: str


def run_views(run: Run) -> list[View]:
    """Every view of a run that can be read, in the order of their names."""
    found, room = [], BYTES
    for file in sorted((run.folder.path / "views").glob("*/result.json")):
        try:
            result = ViewFile.model_validate(read_json(file))
        except (UnreadableRun, ValidationError):
            continue
        parts = []
        for part in result.parts:
            shown = _grid(file.parent, part, room) if isinstance(part, GridFile) else _chart(part)
            room -= len(shown or "") if isinstance(part, GridFile) else 0
            parts.append(Part(part.title, shown, not isinstance(part, GridFile)))
        found.append(View(plugin_text(result.view, result.options), result.said, parts, file.parent.name))
    return found


def _grid(folder: Path, part: GridFile, room: int) -> Markup | None:
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
    data = base64.b64encode(content).decode()
    return Markup('<img class="grid" alt="{}" src="data:image/svg+xml;base64,{}">').format(part.title, data)


def _chart(part: PointsFile | LinesFile) -> Markup:
    if isinstance(part, LinesFile):
        series = [Series(name, list(line), k) for k, (name, line) in enumerate(part.lines.items())]
        return line_chart(series, title=part.title, x_label=part.x_label, y_label=part.y_label)
    return map_chart(part.places, part.groups, part.wrong, title=part.title)
