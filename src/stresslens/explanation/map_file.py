"""explanations/<name>-<8 hex>/result.json: what an explainer's maps are of, and their quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import AliasChoices, Field, SerializerFunctionWrapHandler, model_serializer

from stresslens.core.json_file import Figure, JsonFile, Seconds


class ExplainedImage(JsonFile):
    """`truth` is None where it is not known; `source` is the picture file, where the image has one."""

    index: int
    truth: int | None = None
    predicted: int
    probability: float
    answer: int
    answer_probability: float
    source: str | None = None

    @model_serializer(mode="wrap")
    def _without_absent_source(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if name != "source" or value is not None}


class Quality(JsonFile):
    """Each check with its mean over the images; `each` has its value for every image, `failed` says
    in words what the maps fail."""

    checks: dict[str, Figure] = Field(default_factory=dict)
    each: dict[str, Sequence[float]] = Field(default_factory=dict)
    failed: Sequence[str] = ()


class ExplanationFile(JsonFile):
    """explanations/<name>-<8 hex>/result.json; `limit` is the end of the scale of colours."""

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
