"""transfers.json of a study: every model on the images that fool another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stresslens.core.json_file import Figure, JsonFile
from stresslens.core.types import Finding


class TransferGroup(JsonFile):
    """Rows are the runs that the adversarials were made on, columns the runs that answer them; `n`
    images in each cell."""

    norm: str
    protocol: str
    eps: float
    sources: list[str]
    targets: list[str]
    accuracy: list[list[Figure | None]]


class TransferFile(JsonFile):
    """transfers.json of a study."""

    format: Literal[1] = 1
    fingerprint: str = ""
    groups: Sequence[TransferGroup] = ()
    left_out: Sequence[str] = ()
    findings: Sequence[Finding] = ()
