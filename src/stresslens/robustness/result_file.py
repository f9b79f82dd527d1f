"""Schema of robustness/<key>/result.json: robust accuracies, attacks, findings and traces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BeforeValidator, Field, PlainSerializer

from stresslens.core.array_file import BOOL, FLOAT, INTEGER, TEXT, ArrayFile, Form
from stresslens.core.ball import Norm
from stresslens.core.evidence import Trace
from stresslens.core.json_file import Figure, JsonFile, KeptFinding, ResultJson
from stresslens.core.text import counted
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import wilson
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
    for each attack, the images that it broke and whose minimal radius this is; `no_answer` those of
    the images that are not robust here for which the model has no answer (`core.answers`)."""

    LATER_KEYS = frozenset({"no_answer"})

    eps: float
    robust: Figure
    no_answer: int = 0
    newly_broken_by: dict[str, int] = Field(default_factory=dict)


class QueryLevel(JsonFile):
    """What an attack has reached after so many queries for each image: the robust accuracy at its
    radius, and the median size of the smallest perturbation that fools the model, over the images that
    are correct without attack. The size is None where half of them have none yet."""

    queries: int
    robust: Figure
    perturbation: Figure | None = None


class IndividualAttackRow(JsonFile):
    """One radius of an individual attack. `accuracy` and `top5` are those on the returned images.
    In `valid`, an image counts as broken only if the returned image is inside ball and box.
    `outside` is the number of images outside; for `silent`, see `core.evidence.Trace`. `by_queries` is
    given for an attack that counts its queries."""

    LATER_KEYS = frozenset({"by_queries"})

    eps: float
    accuracy: Figure
    top5: Figure | None = None
    valid: Figure | None = None
    outside: int = 0
    silent: int = 0
    by_queries: Sequence[QueryLevel] = ()


class IndividualAttackCurve(DescribedAttack):
    """An individual attack, run to its end at each radius. `attack` is the plug-in as the settings
    give it. `left_out` counts the images of the target class, which its figures leave out."""

    LATER_KEYS = frozenset({"left_out"})

    attack: str | dict[str, Any] = ""
    target: Any = None
    left_out: int = 0
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


PER_IMAGE = (
    "index",
    "labels",
    "clean_prediction",
    "clean_confidence",
    "smallest",
    "repeated",
    "by",
    "steps",
    "query_sizes",
)
"""The arrays of result.npz with an entry for each image."""
PER_BROKEN = ("rows", "adversarials", "adversarial_prediction", "adversarial_confidence", "size")
"""The arrays of result.npz with an entry for each broken image."""


RESULT_ARRAYS = ArrayFile(
    {
        "index": Form(INTEGER, ("images",), least=0),
        "labels": Form(INTEGER, ("images",), least=0),
        "clean_prediction": Form(INTEGER, ("images",), least=-1),
        "clean_confidence": Form(FLOAT, ("images",)),
        "smallest": Form(FLOAT, ("images",), least=0),
        "repeated": Form(BOOL, ("images",), optional=True),
        "by": Form(INTEGER, ("images",), least=-1, below="attacks"),
        "names": Form(TEXT, ("attacks",)),
        "steps": Form(INTEGER, ("images",), least=0),
        "rows": Form(INTEGER, ("broken",), least=0, below="images"),
        "adversarials": Form(FLOAT, ("broken", "channels", "height", "width"), finite=True),
        "adversarial_prediction": Form(INTEGER, ("broken",), least=-1),
        "adversarial_confidence": Form(FLOAT, ("broken",)),
        "ladder": Form(FLOAT, ("individual", "radii", "channels", "height", "width"), finite=True),
        "ladder_size": Form(FLOAT, ("individual", "radii")),
        "ladder_prediction": Form(INTEGER, ("individual", "radii"), least=-1),
        "ladder_confidence": Form(FLOAT, ("individual", "radii")),
        "size": Form(FLOAT, ("broken",), optional=True),
        "query_sizes": Form(FLOAT, ("images", "individual", "radii", "marks"), optional=True),
    },
    "delete this result's folder and attack the run again (`stresslens attack`)",
)
"""The arrays of result.npz (`robustness.result`)."""


def attacked_images(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays of result.npz without the images of a fixed target class, which no attack drives
    to what they are (their minimal radius is NaN), and without images that repeat an earlier one."""
    smallest = arrays.get("smallest", np.zeros(0))
    attacked = ~np.isnan(smallest) & ~arrays.get("repeated", np.zeros(len(smallest), dtype=bool))
    if attacked.all():
        return dict(arrays)
    kept = {name: values[attacked] if name in PER_IMAGE else values for name, values in arrays.items()}
    if "rows" in kept:
        broken = attacked[kept["rows"]]
        kept |= {name: kept[name][broken] for name in PER_BROKEN if name in kept}
        kept["rows"] = (np.cumsum(attacked) - 1)[kept["rows"]]
    return kept


class ResultFile(ResultJson):
    """robustness/<key>/result.json.

    `asked` is the number of images to attack, `n` the number that was attacked and counts, in
    chunks of `chunk` images. `repeated` counts the images that occur earlier with the same pixels
    and label; they are attacked too, but not counted. `aimed`: only the target counts as success.
    `target_name` is the name of the target class, if it is known; `left_out` counts the images of
    that class, which are neither attacked nor counted. `clean_top5` is given with more than five
    classes. `reported_clean` is the clean accuracy in the record of the run.
    """

    OLD_KEYS = {"individual_attacks": "alone"}
    LATER_KEYS = frozenset({"target_name", "left_out", "repeated", "chunk", "clean_top5"})
    CLOCKS = {
        "cost": frozenset({"seconds", "audit_seconds"}),
        "steering": frozenset({"seconds"}),
        "traces": frozenset({"seconds"}),
    }

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
    repeated: int = 0
    chunk: int | None = None
    seed: int = 0
    target: Any = None
    target_name: str = ""
    aimed: bool = False
    left_out: int = 0
    classes: int | None = None
    clean: Figure
    clean_top5: Figure | None = None
    reported_clean: float | None = None
    curve: Sequence[CurveLevel] = ()
    individual_attacks: Sequence[IndividualAttackCurve] = Field(
        default=(), validation_alias=AliasChoices("individual_attacks", "alone")
    )
    findings: Sequence[KeptFinding] = ()
    audited: bool = False
    traces: Sequence[TraceFacts] = ()
    compute: AttackCompute = Field(
        default=AttackCompute(),
        validation_alias=AliasChoices("compute", "steering"),
        serialization_alias="steering",
    )
    cost: AttackCost = AttackCost()
    settings: dict[str, Any] = Field(default_factory=dict)

    def __repr__(self) -> str:
        keys = ", ".join(type(self).model_fields)
        return f"ResultFile({self.key}, {counted(self.n, 'image')} of {self.split}; {keys})"

    def as_json(self) -> dict[str, Any]:
        """Plain values, as the file holds them; of a targeted success also what was measured."""
        return super().as_json() | ({"measure": self.measure} if self.aimed else {})

    @property
    def measure(self) -> str:
        """What the figures of `curve` are the share of. If only the target counts as success, they
        are no robust accuracy."""
        return "accuracy unless driven to the target" if self.aimed else "robust accuracy"

    @property
    def toward(self) -> str:
        """The target in words: a class by its name, or the rule that chooses one."""
        return self.target_name or str(self.target).replace("_", " ")

    @property
    def outside(self) -> str:
        """How many of the images that an attack returned are outside the ball or the box, in words, of
        the attack with the largest share of them; empty where all are inside."""
        worst = max(self.traces, key=lambda one: one.outside / max(one.n, 1), default=None)
        if worst is None or not worst.outside:
            return ""
        are, do = ("is", "does") if worst.outside == 1 else ("are", "do")
        images = f"{worst.outside:,} of {worst.n:,} returned images {are} outside the ball or the box [0, 1]"
        return f"{images} and {do} not count (attack {worst.attack} at {worst.eps:g})"

    def targeted_success(self, robust: Estimate) -> Estimate:
        """The targeted success rate that belongs to a figure `robust` of `curve`: the share of the
        images that are correct without attack that an attack drives to the target."""
        correct = round(self.clean.value * self.n)
        return wilson(correct - round(robust.value * self.n), correct)
