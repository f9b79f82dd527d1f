"""The files of a run and of a study as they lie on the disk, checked; older ones lack what came later."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from stresslens.config.selection import RuleName
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


class SizeCurve(JsonFile):
    """The runs of a data-size curve, each with its size."""

    name: str
    runs: list[tuple[int, str]]


class StudyFile(JsonFile):
    format: Literal[1] = 1
    name: str
    runs: list[str] = []
    seeds: list[int] = []
    command: list[str] = []
    source: str | None = None
    head: str = ""
    curves: list[SizeCurve] = []


class Contrast(JsonFile):
    contrast: str
    a: str
    b: str
    difference: Figure
    p: float | None = None
    p_holm: float | None = None
    real: bool = False
    verdict: str = ""
    plan: str | None = None


class RobustContrast(JsonFile):
    """A contrast in robustness at one radius; `curve` has the differences at all of them. Without a
    difference a reason alone."""

    contrast: str
    a: str
    b: str
    norm: Literal["linf", "l2", "l1"] = "linf"
    protocol: str = ""
    eps: float = 0.0
    difference: Figure | None = None
    p: float | None = None
    p_holm: float | None = None
    real: bool = False
    verdict: str = ""
    plan: str | None = None
    curve: list[DifferenceAt] = []


class DifferenceAt(JsonFile):
    eps: float
    difference: Figure


class Cost(JsonFile):
    """A measure of b over the same of a."""

    contrast: str
    a: str
    b: str
    measure: str
    ratio: Figure
    real: bool = False
    verdict: str = ""


class Errors(JsonFile):
    """Of each class's images, over the seeds: how many only a has wrong, only b, and both."""

    contrast: str
    a: str
    b: str
    seeds: int = 1
    images: list[int]
    only_a: list[int]
    only_b: list[int]
    both: list[int]


class Claim(JsonFile):
    """What somebody concluded from a contrast, and what is found of it."""

    contrast: str
    claim: str
    sentence: str


class Matrix(JsonFile):
    """Row minus column for every pair of recipes; nothing on the diagonal, or where a pair was not
    compared."""

    recipes: list[str]
    difference: list[list[float | None]]
    low: list[list[float | None]]
    high: list[list[float | None]]
    p_holm: list[list[float | None]]
    real: list[list[bool | None]]

    @model_validator(mode="after")
    def _square(self) -> Matrix:
        k = len(self.recipes)
        if any(
            [len(row) for row in rows] != [k] * k
            for rows in (self.difference, self.low, self.high, self.p_holm, self.real)
        ):
            raise ValueError(f"is not {k} by {k}, the number of its recipes")
        return self


class Influence(JsonFile):
    """A setting's share of the differences between trials."""

    setting: str
    share: Figure
    real: bool = False


class ImportanceTable(JsonFile):
    n: int
    rows: list[Influence] = []
    said: list[str] = []


class PaceAt(JsonFile):
    epoch: int
    difference: Figure


class PaceOf(JsonFile):
    """How two recipes learn against each other."""

    a: str
    b: str
    seeds: int
    epochs: list[PaceAt]
    said: str


class Comparison(JsonFile):
    format: Literal[1] = 1
    split: str = "test"
    metric: str = "accuracy"
    recipes: dict[str, Figure] = {}
    contrasts: list[Contrast] = []
    errors: list[Errors] = []
    costs: list[Cost] = []
    robustness: list[RobustContrast] = []
    matrix: Matrix | None = None
    claims: list[Claim] = []
    verdicts: list[str] = []
    importance: ImportanceTable | None = None
    pace: list[PaceOf] = []


class Trial(JsonFile):
    """One trial of a sweep: its settings, and its value on validation at the epoch chosen."""

    number: int
    settings: dict[str, Any] = {}
    status: Literal["running", "finished", "left out", "diverged"] = "running"
    epochs: int | None = None
    seconds: float | None = None
    value: Figure | None = None


class AskedSweep(JsonFile):
    space: dict[str, Any] | None = None
    where: list[str] = []


class Asked(JsonFile):
    sweep: AskedSweep = AskedSweep()


class SweepFile(JsonFile):
    """sweep.json, which the sweep's owner writes beside a run's seeds."""

    format: Literal[1] = 1
    run: str = ""
    method: str = ""
    metric: RuleName = "accuracy"
    size: int = 0
    asked: Asked = Asked()
    best: int | None = None
    trials: list[Trial] = []
    importance: ImportanceTable | None = None
