"""transfers.json of a study: the accuracy of every model on the adversarial images made for
another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from stresslens.core.json_file import Figure, JsonFile
from stresslens.core.types import Finding


class TransferGroup(JsonFile):
    """`accuracy`: rows are the runs that the adversarial images were made for, columns the runs
    that classify them. Each cell has its own `n` images."""

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
