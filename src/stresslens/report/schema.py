"""The files of a study as they lie on the disk, checked; older ones lack what came later."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from stresslens.core.json_file import Figure, JsonFile


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
    metric: Literal["accuracy", "loss", "robust"] = "accuracy"
    size: int = 0
    asked: Asked = Asked()
    best: int | None = None
    trials: list[Trial] = []
    importance: ImportanceTable | None = None
