"""Schema of corruptions/result.json: accuracy by corruption and severity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from stresslens.core.array_file import BOOL, FLOAT, INTEGER, TEXT, ArrayFile, Form
from stresslens.core.json_file import Figure, JsonFile, ResultJson, Seconds

PASSES = ArrayFile(
    {"fingerprint": Form(TEXT, ()), "seconds": Form(FLOAT, (), finite=True, least=0, optional=True)},
    "delete it, and the same command computes it again",
    others=Form(INTEGER + BOOL, ("images",), least=-1),
)
"""The finished passes of a measurement that was interrupted: the predicted class of each image.
Version 0.1.0 kept whether it is right."""


class SeverityLevel(JsonFile):
    """The accuracy at a severity; `no_answer` of the wrong images have no answer (`core.answers`)."""

    LATER_KEYS = frozenset({"no_answer"})

    severity: int
    accuracy: Figure
    no_answer: int = 0


class CorruptionLevels(JsonFile):
    """The accuracy under one corruption at each severity."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    severities: Sequence[SeverityLevel] = ()


class CorruptionFile(ResultJson):
    """corruptions/result.json. `mean` is the mean over images of the share of corruptions and
    severities at which the image is classified correctly."""

    LATER_KEYS = frozenset({"no_answer"})

    format: Literal[1] = 1
    fingerprint: str = ""
    split: str = "test"
    n: int
    seed: int = 0
    clean: Figure | None = None
    no_answer: int = 0
    """Images without an answer, uncorrupted."""
    corruptions: Sequence[CorruptionLevels] = ()
    mean: Figure | None = None
    cost: Seconds = Seconds()
