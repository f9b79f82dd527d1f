"""What a metric measures: its name, its words, its unit, and how its figures are written."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest

CALIBRATED = "_calibrated"
"""The ending of a metric whose logits are divided by the temperature of the validation split."""


@dataclass(frozen=True)
class Measure:
    """The name of a metric (as in a run's scores), its `words` in a sentence, and its unit: points of a
    percentage, nats, or none. `ends` are its lowest and highest value."""

    name: str
    words: str
    unit: Literal["points", "nats", ""] = "points"
    higher_is_better: bool = True
    ends: tuple[float, float] = (0.0, 1.0)

    @property
    def is_share(self) -> bool:
        """Whether its figures are written in percent."""
        return self.unit == "points"

    @property
    def axis(self) -> str:
        """The label of the axis of differences."""
        if self.name == "accuracy":
            return "percentage points"
        unit = "percentage points" if self.is_share else self.unit
        return f"difference in {self.words}{f', {unit}' if unit else ''}"

    @property
    def smallest(self) -> float:
        """Smaller differences vanish as they are written."""
        return 0.0005 if self.is_share else 0.00005

    def amount(self, value: float) -> str:
        """The size of a difference: `1.3 points of balanced accuracy`, `0.0310 nats of cross-entropy`,
        `0.0120 in Brier score`; of the accuracy, which all else is about, `1.3 points`."""
        return self._of(self.number(abs(value), short=0 < abs(value) < self.smallest))

    @property
    def seen(self) -> str:
        """`in macro F1 `, for "no difference … was seen"; nothing of the accuracy."""
        return "" if self.name == "accuracy" else f"in {self.words} "

    def asked(self, value: float) -> str:
        """A difference that a plan is for: `0.5 points`, `1 point`."""
        text = self._of(f"{100 * value:.3g}" if self.is_share else f"{value:.3g}")
        return text.replace("1 points", "1 point", 1) if text.startswith("1 points") else text

    def number(self, value: float, *, short: bool = False) -> str:
        """A figure without its unit: `1.3`, `0.0310`; with one digit if `short`."""
        scaled = 100 * value if self.is_share else value
        if short:
            return f"{scaled:.1g}"
        digits = 1 if self.is_share or abs(scaled) >= 10 else 4
        return f"{round(scaled, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.0"

    def interval(self, low: float, high: float) -> str:
        """`-0.2 to 2.4`."""
        return f"{self.number(low)} to {self.number(high)}"

    def is_better(self, difference: float) -> bool:
        """Whether a difference is one for the better."""
        return difference > 0 if self.higher_is_better else difference < 0

    def _of(self, number: str) -> str:
        if self.name == "accuracy":
            return f"{number} points"
        return f"{number} {self.unit} of {self.words}" if self.unit else f"{number} in {self.words}"


ACCURACY = Measure("accuracy", "accuracy")

MEASURES = {
    measure.name: measure
    for measure in (
        ACCURACY,
        Measure("balanced_accuracy", "balanced accuracy"),
        Measure("macro_f1", "macro F1"),
        Measure("auroc", "AUROC", ""),
        Measure("brier", "Brier score", "", False, (0.0, 2.0)),
        Measure("ece", "ECE", "", False),
        Measure("cross_entropy", "cross-entropy", "nats", False, (0.0, math.inf)),
        Measure("cost", "cost per image", "", False, (0.0, math.inf)),
    )
}
OF_PROBABILITIES = ("brier", "ece", "cross_entropy")
OF_A_CLASS = {"f1": Measure("f1", "F1"), "auroc": MEASURES["auroc"]}
"""Metrics of one class: `f1@CLASS`."""
NAMES = (
    *MEASURES,
    *(f"{name}{CALIBRATED}" for name in OF_PROBABILITIES),
    *("top5", "f1@CLASS", "auroc@CLASS"),
)
OTHER_NAMES = {
    **dict.fromkeys(("log_loss", "nll", "loss", "crossentropy", "xent"), "cross_entropy"),
    **dict.fromkeys(("f1", "f1_macro", "f1_score"), "macro_f1"),
    **dict.fromkeys(("auc", "roc_auc", "auroc_ovr", "roc_auc_score", "macro_auroc"), "auroc"),
    **dict.fromkeys(("bacc", "balanced", "balanced_acc"), "balanced_accuracy"),
    **dict.fromkeys(("acc", "top1"), "accuracy"),
    **dict.fromkeys(("brier_score", "brier_score_loss"), "brier"),
    **dict.fromkeys(("calibration_error", "calibration"), "ece"),
    **dict.fromkeys(("costs", "cost_weighted", "weighted"), "cost"),
    **dict.fromkeys(("top_5", "top-5", "top5_accuracy"), "top5"),
}
"""Names of other programs, and the metrics that they mean."""


def k_of(name: str) -> int | None:
    """5 for `top5`; None for another metric."""
    found = re.fullmatch(r"top([1-9]\d{0,4})", name)
    return int(found[1]) if found and found[1] != "1" else None


def measure_of(name: str) -> Measure:
    """What the metric of a name measures; robust accuracy is an accuracy. Raises ConfigError for a name
    that is none, with the closest one."""
    if (found := known_measure(name)) is None:
        raise ConfigError(f"--metric {name}: {closest_metric(name)}")
    return found


def known_measure(name: str) -> Measure | None:
    """As `measure_of`; None for a name that is no metric."""
    base = name.removesuffix(CALIBRATED)
    if base in MEASURES and (base == name or base in OF_PROBABILITIES):
        words = MEASURES[base].words + (" after temperature scaling" if name != base else "")
        return replace(MEASURES[base], name=name, words=words)
    if name.startswith("robust@"):
        return ACCURACY
    if (k := k_of(name)) is not None:
        return Measure(name, f"top-{k} accuracy")
    kind, at, of = name.partition("@")
    if at and of and kind in OF_A_CLASS:
        return replace(OF_A_CLASS[kind], name=name, words=f"{OF_A_CLASS[kind].words} of {of}")
    return None


def closest_metric(name: str, valid: Sequence[str] = (*NAMES, "robust@RADIUS")) -> str:
    """What a name that is no metric may mean, and the metrics that are `valid`."""
    meant = OTHER_NAMES.get(name.strip().lower())
    if meant in valid:
        return f"did you mean {meant!r}? valid: {', '.join(sorted(valid))}"
    return closest(name, list(valid))
