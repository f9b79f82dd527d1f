"""Schema of robustness/<key>/result.json: robust accuracies, attacks, findings and traces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer

from stresslens.core.ball import Norm
from stresslens.core.evidence import Trace
from stresslens.core.json_file import Figure, JsonFile
from stresslens.core.types import Finding
from stresslens.robustness.autotune import AttackCompute


def _with_infinity(values: Any) -> Any:
    """Reads the excess null as infinity, which JSON cannot hold."""
    if isinstance(values, dict) and values.get("excess", 0.0) is None:
        return values | {"excess": math.inf}
    return values


TraceFacts = Annotated[Trace, BeforeValidator(_with_infinity), PlainSerializer(Trace.as_json)]
"""A trace, as `Trace.as_json` writes it."""


class DescribedAttack(JsonFile):
    """An attack: the name of its function, its label in tables, and the options that were given."""

    name: str = ""
    label: str = ""
    options: dict[str, Any] = Field(default_factory=dict)


class CurveLevel(JsonFile):
    """Robust accuracy at a radius, in the worst case over all attacks. `newly_broken_by` counts,
    for each attack, the images that it broke and whose minimal radius this is."""

    eps: float
    robust: Figure
    newly_broken_by: dict[str, int] = Field(default_factory=dict)


class IndividualAttackRow(JsonFile):
    """One radius of an individual attack. `accuracy` and `top5` are those on the returned images.
    In `valid`, an image counts as broken only if the returned image is inside ball and box.
    `outside` is the number of images outside; for `silent`, see `core.evidence.Trace`."""

    eps: float
    accuracy: Figure
    top5: Figure | None = None
    valid: Figure | None = None
    outside: int = 0
    silent: int = 0


class IndividualAttackCurve(DescribedAttack):
    """An individual attack, run to its end at each radius. `attack` is the plug-in as the settings
    give it."""

    attack: str | dict[str, Any] = ""
    target: Any = None
    rows: Sequence[IndividualAttackRow] = ()

    @property
    def plugin(self) -> str:
        return self.attack if isinstance(self.attack, str) else next(iter(self.attack), "")


class AttackCost(JsonFile):
    """Gradients and forward passes are counted by image. `seconds` does not include the audits."""

    seconds: float | None = None
    forwards: int | None = None
    gradients: int | None = None
    audit_seconds: float | None = None


class ResultFile(JsonFile):
    """robustness/<key>/result.json.

    `asked` is the number of images to attack, `n` the number that was attacked, in chunks of
    `chunk` images. `aimed`: only the
    target counts as success. `reported_clean` is the clean accuracy in the record of the run.
    """

    OLD_KEYS = {"individual_attacks": "alone"}

    format: Literal[1] = 1
    version: str = ""
    key: str
    fingerprint: str = ""
    norm: Norm
    radii: list[float]
    protocol: str = "own"
    attacks: Sequence[DescribedAttack] = ()
    split: str = "test"
    n: int
    asked: int | None = None
    chunk: int | None = None
    seed: int = 0
    target: Any = None
    aimed: bool = False
    classes: int | None = None
    clean: Figure
    reported_clean: float | None = None
    curve: Sequence[CurveLevel] = ()
    individual_attacks: Sequence[IndividualAttackCurve] = Field(
        default=(), validation_alias=AliasChoices("individual_attacks", "alone")
    )
    findings: Sequence[Finding] = ()
    audited: bool = False
    traces: Sequence[TraceFacts] = ()
    compute: AttackCompute = Field(
        default=AttackCompute(),
        validation_alias=AliasChoices("compute", "steering"),
        serialization_alias="steering",
    )
    cost: AttackCost = AttackCost()
    settings: dict[str, Any] = Field(default_factory=dict)
