"""Schema of views/<name>-<8 hex>/result.json: the images, points and lines of a view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from stresslens.core.json_file import JsonFile, ResultJson, Seconds


class GridPart(JsonFile):
    """A grid of images in an SVG file beside the result. The caption of an empty cell is None."""

    kind: Literal["grid"] = "grid"
    title: str
    file: str
    captions: Sequence[Sequence[str | None]] = ()


class PointsPart(JsonFile):
    kind: Literal["points"] = "points"
    title: str
    places: Sequence[tuple[float, float]]
    groups: Sequence[str]
    wrong: Sequence[bool]


class LinesPart(JsonFile):
    kind: Literal["lines"] = "lines"
    title: str
    x_label: str
    y_label: str
    lines: dict[str, Sequence[tuple[float, float]]]


class ViewFile(ResultJson):
    """views/<name>-<8 hex>/result.json. `said` holds the sentences of the view, `facts` their
    numbers."""

    format: Literal[1] = 1
    fingerprint: str = ""
    view: str
    options: dict[str, Any] = Field(default_factory=dict)
    said: Sequence[str] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    parts: Sequence[Annotated[GridPart | PointsPart | LinesPart, Field(discriminator="kind")]] = ()
    cost: Seconds = Seconds()
