"""certificates/<name>-<8 hex>/result.json: how many images a certificate holds for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from stresslens.core.json_file import Figure, JsonFile, Seconds


class CertifiedLevel(JsonFile):
    """The share of images that are certified beyond a radius; at 0, that are answered right."""

    radius: float
    certified: Figure


class CertificateFile(JsonFile):
    """certificates/<name>-<8 hex>/result.json."""

    format: Literal[1] = 1
    fingerprint: str = ""
    certificate: str
    options: dict[str, Any] = Field(default_factory=dict)
    norm: str = "l2"
    split: str = "test"
    n: int
    seed: int = 0
    abstained: int = 0
    curve: Sequence[CertifiedLevel] = ()
    smoothed_accuracy: Figure | None = None
    cost: Seconds = Seconds()
