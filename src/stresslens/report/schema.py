"""examples.json of a run, checked; older files lack later fields."""

from __future__ import annotations

from stresslens.core.json_file import JsonFile


class Example(JsonFile):
    file: str
    truth: int
    predicted: int
    probability: float
    kind: str = "sample"
    index: int | None = None
    probabilities: list[tuple[int, float]] = []
    box: tuple[int, int, int, int] | None = None
    source: str | None = None
