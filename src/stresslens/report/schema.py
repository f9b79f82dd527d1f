"""The files of a run and of a study as they lie on the disk, checked; older ones lack what came later."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, model_validator

from stresslens.core.json_file import Figure, JsonFile
from stresslens.core.layer_table import LayerTable


class Finding(JsonFile):
    """What an audit of the data found; `items` are the files or images that show it."""

    audit: str
    status: Literal["sign", "no sign", "not checked"] = "not checked"
    severity: Literal["none", "minor", "serious"] = "none"
    evidence: str = ""
    n: int = 0
    remedy: str = ""
    items: list[str] = []


class Division(JsonFile):
    """How a seed's splits were drawn, where every seed draws its own: folds or repeated random splits."""

    kind: str
    folds: int | None = None
    fold: int | None = None
    repetition: int | None = None


class DataFacts(JsonFile):
    name: str = ""
    fingerprint: str = ""
    sizes: dict[str, int] = {}
    notes: list[str] = []
    findings: list[Finding] = []
    division: Division | None = None


class Penalty(JsonFile):
    penalty: float
    accuracy: float | None = None
    loss: float | None = None


class TrainingFacts(JsonFile):
    epochs: int | None = None
    chosen_epoch: int | None = None
    steps: int | None = None
    seconds: float | None = None
    peak_memory: int | None = None
    images_per_second: float | None = None
    images: int | None = None
    """Of an estimator, how many it was fitted on."""
    stopped: str = ""
    select: str = ""
    penalties: list[Penalty] = []
    """Of a linear probe, those tried."""


class Scoring(JsonFile):
    """How long the model's pass over a split took."""

    seconds: float
    images: int


class PerClass(JsonFile):
    precision: list[Figure] = []
    recall: list[Figure] = []
    f1: list[Figure] = []
    support: list[int] = []
    auroc: list[Figure] = []
    auprc: list[Figure] = []


class Bin(JsonFile):
    """The images whose highest probability lies between `low` and `high`; `confidence` is its mean there."""

    low: float
    high: float
    n: int
    confidence: float | None = None
    accuracy: Figure | None = None


class Reliability(JsonFile):
    bins: list[Bin]
    calibrated: list[Bin] | None = None


class RiskCoverage(JsonFile):
    """`risk` is the share of errors among the most confident `coverage` of the images."""

    coverage: list[float]
    risk: list[float | None]


class Slice(JsonFile):
    value: str
    n: int
    accuracy: Figure


class SliceTable(JsonFile):
    by: str
    p: float | None = None
    p_holm: float | None = None
    rows: list[Slice]


class Calibration(JsonFile):
    temperature: float
    fitted_on: str = "validation"
    n: int | None = None


class Note(JsonFile):
    """What happened to a run on its way, in words."""

    kind: str = ""
    message: str = ""


class Position(JsonFile):
    epoch: int = 0
    step: int = 0


class Likeness(JsonFile):
    """At what rate images like the training images are called unlike, by `n` validation images;
    None where it cannot be told."""

    rate: float | None = None
    n: int = 0


class BegunWith(JsonFile):
    """The weights that a run began with: what became of their tensors, and of the images before the net."""

    said: str = ""
    input: str = ""


class Record(JsonFile):
    """record.json; everything but the status may be missing while a run is not finished."""

    format: Literal[1] = 1
    version: str = ""
    status: str
    message: str = ""
    study: str = ""
    run: str | None = None
    seed: int | None = None
    classes: list[Annotated[str, BeforeValidator(lambda name: name or "(no name)")]] = []
    shape: tuple[int, int, int] | None = None
    data: DataFacts = DataFacts()
    training: TrainingFacts = TrainingFacts()
    weights: BegunWith | None = None
    layers: LayerTable | None = None
    scoring: dict[str, Scoring] = {}
    scores: dict[str, dict[str, Figure]] = {}
    per_class: dict[str, PerClass] = {}
    confusion: dict[str, list[list[int]]] = {}
    reliability: dict[str, Reliability] = {}
    risk_coverage: dict[str, RiskCoverage] = {}
    slices: dict[str, list[SliceTable]] = {}
    calibration: Calibration | None = None
    likeness: Likeness | None = None
    findings: list[Note] = []
    reads_of_test: int = 0
    watched_test: bool = False
    resumed_from: list[Position] = []

    @model_validator(mode="after")
    def _one_row_per_class(self) -> Record:
        k = len(self.classes)
        for split, rows in self.confusion.items():
            if [len(row) for row in rows] != [k] * k:
                raise ValueError(f"the confusion matrix of {split} is not {k} by {k}, the number of classes")
        for split, table in self.per_class.items():
            columns = (table.precision, table.recall, table.f1, table.support)
            if {len(column) for column in columns} != {k} or {len(table.auroc), len(table.auprc)} - {0, k}:
                raise ValueError(
                    f"the table per class of {split} does not have {k} rows, the number of classes"
                )
        return self


class Example(JsonFile):
    file: str
    truth: int
    predicted: int
    probability: float
    kind: str = "sample"
    index: int | None = None
    probabilities: list[tuple[int, float]] = []
    box: tuple[int, int, int, int] | None = None
    source: str | None = None
