"""comparison.json: contrasts, verdicts, errors and costs, as `compare_study_accuracy` writes and
the report shows them.

To add a column to the table of contrasts, add a field to `Contrast`, which `Difference.as_contrast`
fills, and an entry to `CONTRAST_COLUMNS`. A study's page shows every entry, also for robustness.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from pydantic import model_validator

from stresslens.core.json_file import Figure, JsonFile
from stresslens.metrics.measures import measure_of


class MarginVerdict(JsonFile):
    """Whether two are the same within a `margin` (a share), or the second is not worse by more than it.

    `p` is 1 - level of the interval that just lies inside the margin, which is twice the p of the one-sided
    test (for sameness of the larger of two), before and after Holm's correction over the pairs. `interval`
    is the difference with the interval that has to lie inside; it is missing where the seeds are too few.
    `plan` says what it would take, where it is not shown.
    """

    kind: Literal["same", "not worse"]
    margin: float
    shown: bool
    p: float
    p_holm: float
    interval: Figure | None = None
    too_few_seeds: bool = False
    verdict: str
    plan: str | None = None


class Contrast(JsonFile):
    """Accuracy of b minus accuracy of a, with p before and after Holm's correction.

    `plan` says how many images and seeds would be needed to tell a difference. `balanced` is the
    difference in balanced accuracy, where the classes are unbalanced. `too_few_seeds`: the images of
    each seed tell the two apart, but the seeds are too few to test. `adjusted` is the difference with
    its interval after Holm's correction, where that alone includes 0. `same` and `not_worse` are what
    the margins say that were asked for. `metric` is what the difference is of, where it is not the
    accuracy (`metrics.measures`).
    """

    LATER_KEYS = frozenset({"same", "not_worse", "metric"})

    contrast: str
    a: str
    b: str
    difference: Figure
    p: float | None = None
    p_holm: float | None = None
    real: bool = False
    verdict: str = ""
    plan: str | None = None
    balanced: Figure | None = None
    too_few_seeds: bool = False
    adjusted: Figure | None = None
    metric: str = "accuracy"
    same: MarginVerdict | None = None
    not_worse: MarginVerdict | None = None

    @property
    def of_margins(self) -> list[MarginVerdict]:
        """The verdicts on the margins that were asked for."""
        return [each for each in (self.same, self.not_worse) if each is not None]

    @property
    def better(self) -> int:
        """1 if b is really better than a, -1 if a is than b, and 0 if they are not distinguishable."""
        if not self.real or self.difference.value == 0:
            return 0
        return 1 if measure_of(self.metric).is_better(self.difference.value) else -1


def verdicts_on_margins(contrasts: Iterable[Contrast]) -> list[MarginVerdict]:
    """The verdicts of contrasts on the margins that were asked for, each sentence once."""
    return list({each.verdict: each for contrast in contrasts for each in contrast.of_margins}.values())


class BestSet(JsonFile):
    """The variants that may be the best of all that were compared: with the chance `level` the truly best
    is among them. `beaten` are the others, each with one that is shown to be better."""

    level: float
    variants: list[str]
    beaten: dict[str, str] = {}
    said: str


class ContrastColumn(NamedTuple):
    """A column of the table of contrasts: a field of `Contrast`, its heading and its format.

    Formats: `name` and `text` are words. `points` is an estimate in percentage points. `unit` is
    what the interval of an estimate is over; the column is left out if all rows have the same. `p`
    is a p-value. `threat` is norm, radius and protocol of an attack. `verdict` is the sentence with
    its plan. `contrast_cell` in parts.html.j2 writes each of these.
    """

    field: str
    heading: str
    written: Literal["name", "text", "points", "unit", "p", "threat", "verdict"]


CONTRAST_COLUMNS = (
    ContrastColumn("contrast", "Contrast", "name"),
    ContrastColumn("a", "From", "text"),
    ContrastColumn("b", "To", "text"),
    ContrastColumn("difference", "Difference, points", "points"),
    ContrastColumn("difference", "Interval over", "unit"),
    ContrastColumn("p", "p", "p"),
    ContrastColumn("p_holm", "p, Holm", "p"),
    ContrastColumn("verdict", "Verdict", "verdict"),
)

ROBUST_CONTRAST_COLUMNS = (
    *CONTRAST_COLUMNS[:3],
    ContrastColumn("norm", "Threat", "threat"),
    *(column for column in CONTRAST_COLUMNS[3:] if column.written != "unit"),
)
"""Columns of the table of contrasts in robustness."""


class DifferenceAtRadius(JsonFile):
    eps: float
    difference: Figure


class RobustContrast(Contrast):
    """A contrast in robust accuracy at one radius; `curve` has the differences at all of them."""

    norm: Literal["linf", "l2", "l1"] = "linf"
    protocol: str = ""
    eps: float = 0.0
    curve: list[DifferenceAtRadius] = []


class UncomparedPair(JsonFile):
    """A pair that could not be compared; `verdict` says why."""

    contrast: str
    a: str
    b: str
    verdict: str = ""


class ErrorsByClass(JsonFile):
    """For each class, over the seeds: its images, those that only a gets wrong, only b, and
    both."""

    contrast: str
    a: str
    b: str
    seeds: int = 1
    images: list[int]
    only_a: list[int]
    only_b: list[int]
    both: list[int]


class CostRatio(JsonFile):
    """A cost of b over the same cost of a; `cost_a` and `cost_b` are the means over the seeds, in
    seconds, bytes or numbers, None in files of earlier versions."""

    contrast: str
    a: str
    b: str
    measure: str
    ratio: Figure
    p_holm: float | None = None
    real: bool = False
    verdict: str = ""
    cost_a: float | None = None
    cost_b: float | None = None


class DifferenceMatrix(JsonFile):
    """Row minus column for every pair of variants; null on the diagonal and where a pair was not
    compared."""

    recipes: list[str]
    difference: list[list[float | None]]
    low: list[list[float | None]]
    high: list[list[float | None]]
    p_holm: list[list[float | None]]
    real: list[list[bool | None]]

    @model_validator(mode="after")
    def _square(self) -> DifferenceMatrix:
        k = len(self.recipes)
        if any(
            [len(row) for row in rows] != [k] * k
            for rows in (self.difference, self.low, self.high, self.p_holm, self.real)
        ):
            raise ValueError(f"is not {k} by {k}, the number of its variants")
        return self


class JudgedClaim(JsonFile):
    """A claim of a study file about a contrast: a finding for each pair, and one sentence for
    all."""

    LATER_KEYS = frozenset({"of"})

    contrast: str
    claim: str
    of: Literal["accuracy", "robustness", "sameness"] = "accuracy"
    pairs: list[str] = []
    sentence: str


class SettingImportance(JsonFile):
    """A setting's share of the differences between trials or runs."""

    setting: str
    share: Figure
    p: float | None = None
    p_holm: float | None = None
    real: bool = False


class ImportanceTable(JsonFile):
    """The settings, the most important first, over `n` trials or runs, and the conclusions in words
    (`said`)."""

    n: int
    rows: list[SettingImportance] = []
    said: list[str] = []


class DifferenceAtEpoch(JsonFile):
    epoch: int
    difference: Figure


class Convergence(JsonFile):
    """How fast two variants learn: accuracy on `n` validation images, b minus a, by epoch.

    `start`, `best` and `converged` have a figure for each of the two: the accuracy at the first
    epoch, the best accuracy, and the first epoch within a point of the best.
    """

    contrast: str = ""
    a: str
    b: str
    seeds: int
    n: int | None = None
    epochs: list[DifferenceAtEpoch]
    start: dict[str, float] = {}
    best: dict[str, float] = {}
    converged: dict[str, int] = {}
    said: str


class ComparisonByMetric(JsonFile):
    """The figures of variants, and the contrasts, by a metric other than accuracy. `asked`: the study file
    lists the metric; else it is judged because the classes are unbalanced. `refused` are sentences on what
    was not compared."""

    asked: bool = True
    recipes: dict[str, Figure] = {}
    contrasts: list[Contrast] = []
    refused: list[str] = []


class IngredientWorth(JsonFile):
    """What an ingredient of a recipe is worth by one metric. `left_out` is the full recipe minus the full one
    without it, `added` is the bare one with it minus the bare one; None where this was not compared.
    `interaction` is the first minus the second, with p after Holm's correction over the ingredients. `plan`
    says how many images and seeds it would take to tell, among all contrasts, what is not distinguishable.
    """

    ingredient: str
    left_out: Contrast | None = None
    added: Contrast | None = None
    interaction: Contrast | None = None
    verdict: str = ""
    plan: str | None = None


class WorthTable(JsonFile):
    """The ingredients by one `metric`, in its words, the one that is worth most in the full recipe first;
    `together` is the full recipe minus the bare one."""

    metric: str = "accuracy"
    together: Contrast | None = None
    rows: list[IngredientWorth] = []


class AblatedIngredient(JsonFile):
    """An ingredient with its settings in words, and its price: the costs of the full recipe over those of the
    full one without it."""

    name: str
    settings: str = ""
    costs: list[CostRatio] = []


class Ablation(JsonFile):
    """What each ingredient of a recipe is worth. `full` and `bare` are variants; `full` is None where
    ingredients exclude each other, which `excluded` says. `kept` are settings of the recipe that are in all
    runs, with why."""

    LATER_KEYS = frozenset({"excluded"})

    full: str | None
    bare: str
    ingredients: list[AblatedIngredient] = []
    tables: list[WorthTable] = []
    kept: dict[str, str] = {}
    excluded: str = ""


class ComparisonFile(JsonFile):
    """comparison.json. A part that does not exist, such as the matrix of two variants, is not
    written."""

    REMEDY = "the command of the study (`stresslens run` or `train`) writes it anew"

    LATER_KEYS = frozenset({"by_metric", "ablation"})

    format: Literal[1] = 1
    split: str = "test"
    metric: str = "accuracy"
    level: float = 0.95
    recipes: dict[str, Figure] = {}
    contrasts: list[Contrast] = []
    errors: list[ErrorsByClass] = []
    costs: list[CostRatio] = []
    refused: list[str] = []
    verdicts: list[str] = []
    matrix: DifferenceMatrix | None = None
    best: BestSet | None = None
    claims: list[JudgedClaim] = []
    robustness: list[RobustContrast | UncomparedPair] = []
    importance: ImportanceTable | None = None
    pace: list[Convergence] = []
    by_metric: dict[str, ComparisonByMetric] = {}
    ablation: Ablation | None = None

    @property
    def by_verdict(self) -> dict[str, list[Contrast]]:
        """The contrasts by their verdicts; contrasts of the same pair have the same one."""
        found: dict[str, list[Contrast]] = {}
        for contrast in self.contrasts:
            found.setdefault(contrast.verdict, []).append(contrast)
        return found

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_unset=True)
