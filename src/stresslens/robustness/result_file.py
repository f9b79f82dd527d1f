"""robustness/<key>/result.json: what attacking a model found."""

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
    """JSON has no infinity: an excess that is not finite was written as null."""
    if isinstance(values, dict) and values.get("excess", 0.0) is None:
        return values | {"excess": math.inf}
    return values


TraceFacts = Annotated[Trace, BeforeValidator(_with_infinity), PlainSerializer(Trace.as_json)]
"""A trace, as `Trace.as_json` writes it."""


class DescribedAttack(JsonFile):
    """An attack: the name of its function, what it is called in tables, and the options given."""

    name: str = ""
    label: str = ""
    options: dict[str, Any] = Field(default_factory=dict)


class CurveLevel(JsonFile):
    """The worst case of all attacks at a radius; `newly_broken_by` counts the images that each
    attack broke here and at no smaller radius."""

    eps: float
    robust: Figure
    newly_broken_by: dict[str, int] = Field(default_factory=dict)


class IndividualAttackRow(JsonFile):
    """`accuracy` is of the images as the attack returned them; `valid` counts only those inside
    ball and box as broken."""

    eps: float
    accuracy: Figure
    top5: Figure | None = None
    valid: Figure | None = None
    outside: int = 0
    silent: int = 0


class IndividualAttackCurve(DescribedAttack):
    """One attack by itself, run to its end at each radius. `attack` is the plug-in as the settings
    name it."""

    attack: str | dict[str, Any] = ""
    target: Any = None
    rows: Sequence[IndividualAttackRow] = ()

    @property
    def plugin(self) -> str:
        return self.attack if isinstance(self.attack, str) else next(iter(self.attack), "")


class AttackCost(JsonFile):
    """Gradients and forward passes count images; the audits have their own seconds."""

    seconds: float | None = None
    forwards: int | None = None
    gradients: int | None = None
    audit_seconds: float | None = None


class ResultFile(JsonFile):
    """robustness/<key>/result.json."""

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
