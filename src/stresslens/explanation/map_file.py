"""Schema of explanations/<name>-<8 hex>/result.json: the images of attribution maps, and their
quality checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import AliasChoices, Field

from stresslens.core.array_file import FLOAT, INTEGER, ArrayFile, Form
from stresslens.core.json_file import Figure, JsonFile, ResultJson, Seconds

MAP_ARRAYS = ArrayFile(
    {
        "index": Form(INTEGER, ("images",)),
        "labels": Form(INTEGER, ("images",)),
        "answers": Form(INTEGER, ("images",)),
        "maps": Form(FLOAT, ("images", "height", "width"), finite=True),
        "shown": Form("u", ("images", "shown height", "shown width", ...), below=256),
    },
    "delete this explanation's folder and explain the run again (`stresslens explain`)",
)
"""The arrays of maps.npz: maps (n, H, W), and the images as they are shown, (n, h, w) or (n, h, w, 3)
in uint8."""


class ExplainedImage(JsonFile):
    """An explained image. `answer` is the class that its map explains. `truth` is None if it is not
    known; `source` is the image file, if there is one."""

    LATER_KEYS = frozenset({"source"})

    index: int
    truth: int | None = None
    predicted: int
    probability: float
    answer: int
    answer_probability: float
    source: str | None = None


class Quality(JsonFile):
    """Quality checks of maps: `checks` has their means over the images, `each` their values for
    every image, and `failed` says in words which checks the maps fail."""

    checks: dict[str, Figure] = Field(default_factory=dict)
    each: dict[str, Sequence[float]] = Field(default_factory=dict)
    failed: Sequence[str] = ()


class ExplanationFile(ResultJson):
    """explanations/<name>-<8 hex>/result.json. `limit` is the largest value on the colour scale."""

    OLD_KEYS = {"quality": "worth", "target_class": "answer"}

    format: Literal[1] = 1
    fingerprint: str = ""
    explainer: str
    options: dict[str, Any] = Field(default_factory=dict)
    split: str
    choose: Any = None
    target_class: Any = Field(default=None, validation_alias=AliasChoices("target_class", "answer"))
    unit: str
    signed: bool
    limit: float | None = None
    notes: Sequence[str] = ()
    images: list[ExplainedImage]
    quality: Quality | None = Field(default=None, validation_alias=AliasChoices("quality", "worth"))
    cost: Seconds = Seconds()
