"""views/<name>-<8 hex>/result.json: the pictures, points and lines of a view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from stresslens.core.json_file import JsonFile, Seconds


class GridPart(JsonFile):
    """Pictures, in an SVG beside the result; None where a cell of the grid is empty."""

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


class ViewFile(JsonFile):
    """views/<name>-<8 hex>/result.json; `said` is what the view says, `facts` the same in numbers."""

    format: Literal[1] = 1
    fingerprint: str = ""
    view: str
    options: dict[str, Any] = Field(default_factory=dict)
    said: Sequence[str] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    parts: Sequence[Annotated[GridPart | PointsPart | LinesPart, Field(discriminator="kind")]] = ()
    cost: Seconds = Seconds()
