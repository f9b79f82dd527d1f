"""corruptions/result.json: a model's accuracy over corruptions and severities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from stresslens.core.json_file import Figure, JsonFile, Seconds


class SeverityLevel(JsonFile):
    severity: int
    accuracy: Figure


class CorruptionLevels(JsonFile):
    """The accuracy under one corruption at each severity."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    severities: Sequence[SeverityLevel] = ()


class CorruptionFile(JsonFile):
    """corruptions/result.json; `mean` is over images, of each the share of all corruptions and
    severities answered right."""

    format: Literal[1] = 1
    fingerprint: str = ""
    split: str = "test"
    n: int
    seed: int = 0
    clean: Figure | None = None
    corruptions: Sequence[CorruptionLevels] = ()
    mean: Figure | None = None
    cost: Seconds = Seconds()
