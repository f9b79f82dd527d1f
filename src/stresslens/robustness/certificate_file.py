"""Schema of certificates/<name>-<8 hex>/result.json: certified accuracy by radius."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from stresslens.core.array_file import FLOAT, INTEGER, TEXT, ArrayFile, Form
from stresslens.core.json_file import Figure, JsonFile, ResultJson, Seconds

RADII = ArrayFile(
    {
        "index": Form(INTEGER, ("images",), least=0),
        "labels": Form(INTEGER, ("images",), least=0),
        "radius": Form(FLOAT, ("images",)),
    },
    "delete this certificate's folder and attack the run again with --certificate",
)
"""The arrays of result.npz; a radius is NaN where the certificate abstains."""
PARTIAL_RADII = ArrayFile(
    {
        "radius": Form(FLOAT, ("images",)),
        "seconds": Form(FLOAT, (), finite=True, least=0),
        "fingerprint": Form(TEXT, ()),
    },
    "delete it, and the same command computes it again",
)
"""The arrays of partial.npz: the first radii of a certificate that was interrupted."""


class CertifiedLevel(JsonFile):
    """Certified accuracy: the share of images whose certified radius is larger than `radius`. At
    radius 0 it is the share that the certificate classifies correctly."""

    radius: float
    certified: Figure


class CertificateFile(ResultJson):
    """certificates/<name>-<8 hex>/result.json. `abstained` is the number of images without a
    certificate, `smoothed_accuracy` the share of images that the certificate classifies correctly.
    `no_answer` counts the images for which the model itself has no answer (`core.answers`).
    Beyond `largest_radius` no image can be certified with these options, whatever the model; None if
    the certificate does not say."""

    LATER_KEYS = frozenset({"no_answer"})

    format: Literal[1] = 1
    fingerprint: str = ""
    certificate: str
    options: dict[str, Any] = Field(default_factory=dict)
    norm: str = "l2"
    split: str = "test"
    n: int
    seed: int = 0
    abstained: int = 0
    no_answer: int = 0
    curve: Sequence[CertifiedLevel] = ()
    largest_radius: float | None = None
    smoothed_accuracy: Figure | None = None
    cost: Seconds = Seconds()
