"""Quality gates for CI: `--fail-under accuracy=0.97`, `accuracy.low=0.97` for the lower end of the
interval, `--fail-over ece=0.05` for scores of which less is better, `robust@8/255=0.4` for an attacked
run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stresslens.comparison.headline import unbalanced
from stresslens.core.ball import parse_radius, same_radius
from stresslens.core.errors import ConfigError, GateNotMet
from stresslens.core.spelling import closest
from stresslens.core.types import Estimate
from stresslens.evaluation.record import RunRecord
from stresslens.robustness.result import AttackResult

SCORES = (
    *("accuracy", "accuracy_without_copies", "top5", "balanced_accuracy", "auroc", "auprc"),
    *("macro_precision", "macro_f1", "weighted_precision", "weighted_f1"),
)
"""Those of which more is better."""
OF_A_CLASS = ("precision", "recall", "f1", "auroc", "auprc")
"""Scores of one class, of which more is better: `f1@CLASS`."""
COSTS = (
    *("brier", "brier_calibrated", "cross_entropy", "cross_entropy_calibrated"),
    *("ece", "ece_calibrated", "aurc", "no_answer"),
)
"""Scores of which less is better."""
UNDER, OVER = "--fail-under", "--fail-over"


@dataclass(frozen=True)
class Gate:
    """The value that a score, or the lower end of its interval, must reach; with `over` the value that
    the score, or the upper end, must not exceed."""

    score: str
    bound: float
    of_end: bool
    over: bool = False

    @property
    def option(self) -> str:
        return OVER if self.over else UNDER

    def missed(self, run: str, estimate: Estimate) -> str | None:
        """A sentence when it is not met. A score that is not known (NaN) does not meet it."""
        end = estimate.high if self.over else estimate.low
        value = end if self.of_end else estimate.value
        if value <= self.bound if self.over else value >= self.bound:
            return None
        beyond = f"{'above' if self.over else 'below'} {self.bound:g}"
        if self.of_end:
            over = f"{estimate.value:.4f}, {estimate.level * 100:g} % interval, n = {estimate.n}"
            which = "upper" if self.over else "lower"
            return f"{run}: the {which} end of {self.score} is {value:.4f} ({over}), {beyond}"
        return f"{run}: {self.score} {value:.4f} is {beyond}"


@dataclass(frozen=True)
class RobustGate:
    """The least share of images that must be robust at a radius."""

    eps: float
    least: float

    def missed(self, run: str, estimate: Estimate) -> str | None:
        """A sentence when it is not met."""
        if estimate.value >= self.least:
            return None
        return (
            f"{run}: robust accuracy at {self.eps:g} is {estimate.value:.4f} (n = {estimate.n}), "
            f"below {self.least:g}"
        )


def parsed(texts: Sequence[str], over: Sequence[str] = ()) -> list[Gate]:
    """The gates of `score=value` and `score.low=value`, and `over`, those of `score=value` and
    `score.high=value`. Raises ConfigError."""
    return [*(_gate(text, over=False) for text in texts), *(_gate(text, over=True) for text in over)]


def _gate(text: str, *, over: bool) -> Gate:
    option, end = (OVER, ".high") if over else (UNDER, ".low")
    name, _, value = text.rpartition("=") if text.count("=") > 1 else text.partition("=")
    score = name.removesuffix(end)
    valid, others = (COSTS, SCORES) if over else (SCORES, COSTS)
    kind, at, of = score.partition("@")
    of_a_class = bool(at and of) and kind in OF_A_CLASS
    if score.removesuffix(".low").removesuffix(".high") in others or (over and of_a_class):
        more, instead = ("more", UNDER) if over else ("less", OVER)
        raise ConfigError(f"{option} {text}: of {score} {more} is better; use {instead} {text}")
    if score not in valid and not (of_a_class and not over):
        names = valid if over else (*valid, *(f"{each}@CLASS" for each in OF_A_CLASS))
        raise ConfigError(f"{option} {text}: {closest(score, list(names))}")
    example = "ece=0.05 or ece.high=0.05" if over else "accuracy=0.97 or accuracy.low=0.97"
    form = f"score=value, for example {example}"
    bound = _bound(option, text, value, form, is_share=not over)
    return Gate(score, bound, name != score, over)


def _bound(option: str, text: str, value: str, form: str, *, is_share: bool) -> float:
    try:
        bound = float(value)
    except ValueError:
        raise ConfigError(f"{option} {text}: expected {form}") from None
    if not 0 <= bound < math.inf or (is_share and bound > 1):
        what = (
            "the least is a share from 0 to 1 (60 % is 0.6)" if is_share else "the most is a number from 0 up"
        )
        raise ConfigError(f"{option} {text}: {what}")
    return bound


def parsed_robust(texts: Sequence[str]) -> list[RobustGate]:
    """The gates of `robust@RADIUS=SHARE`. Raises ConfigError."""
    gates = []
    for text in texts:
        name, _, value = text.partition("=")
        kind, _, at = name.partition("@")
        form = "robust@RADIUS=SHARE, for example robust@8/255=0.4"
        try:
            radius = parse_radius(at)
        except ConfigError:
            radius = math.nan
        if kind != "robust" or math.isnan(radius):
            raise ConfigError(f"--fail-under {text}: expected {form}")
        if not 0 <= radius < math.inf:
            raise ConfigError(f"--fail-under {text}: a radius is finite and at least 0")
        gates.append(RobustGate(radius, _bound(UNDER, text, value, form, is_share=True)))
    return gates


def scores_to_check(record: RunRecord, split: str) -> dict[str, Estimate]:
    """The scores of a run on a split, and those of each class as `f1@CLASS`."""
    scores, each = dict(record.scores.get(split, {})), record.per_class.get(split)
    if each is not None:
        for kind in OF_A_CLASS:
            scores |= {f"{kind}@{name}": found for name, found in zip(record.classes, getattr(each, kind))}
    return scores


def check_known(gates: Sequence[Gate], run: str, scores: Mapping[str, Estimate]) -> None:
    """Raises ConfigError for a score that a run does not have, as top5 of two classes, or any
    without a test split."""
    for gate in gates:
        if gate.score not in scores:
            kind, at, _ = gate.score.partition("@")
            classes = [name for name in scores if name.startswith(f"{kind}@")]
            known = [name for name in scores if "@" not in name]
            has = closest(gate.score, classes) if at and classes else f"it has {', '.join(known) or 'none'}"
            raise ConfigError(f"{gate.option} {gate.score}: {run} has no such score; {has}")


def check_attacked(gates: Sequence[RobustGate], radii: Sequence[float], *, targeted: bool = False) -> None:
    """Raises ConfigError for a radius that is not among those attacked, and for an attack with which
    only the target counts as success."""
    for gate in gates:
        if targeted:
            raise ConfigError(
                f"--fail-under robust@{gate.eps:g}: with --success target only the target counts, "
                "so there is no robust accuracy to check; leave one of the two out"
            )
        if not any(same_radius(radius, gate.eps) for radius in radii):
            raise ConfigError(
                f"--fail-under robust@{gate.eps:g}: that radius was not attacked; give it with --radii"
            )


def check(gates: Sequence[Gate], finished: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    """Raises GateNotMet, naming every run that misses one, and ConfigError for a score that a run
    does not have. Of unbalanced classes, the balanced accuracy stands beside the accuracy; where all
    gates are met, returns a sentence on each such run: a model that names the largest class alone may
    meet a gate on accuracy too."""
    for run, scores in finished.items():
        check_known(gates, run, scores)
    missed = [
        (gate, run, gate.missed(run, scores[gate.score]))
        for gate in gates
        for run, scores in finished.items()
    ]
    _all_met([said and f"{said}{_beside(gate, finished[run])}" for gate, run, said in missed])
    return [
        f"{run}: accuracy {scores['accuracy'].value:.4f} meets its gate{_beside(gate, scores)}; a gate on "
        "balanced_accuracy sees every class"
        for gate in gates
        for run, scores in finished.items()
        if _is_of_unbalanced_accuracy(gate, scores)
    ]


def _beside(gate: Gate, scores: Mapping[str, Estimate]) -> str:
    if not _is_of_unbalanced_accuracy(gate, scores):
        return ""
    return f"; its classes are unbalanced, and balanced_accuracy is {scores['balanced_accuracy'].value:.4f}"


def _is_of_unbalanced_accuracy(gate: Gate, scores: Mapping[str, Estimate]) -> bool:
    """Whether a gate is on the accuracy of unbalanced classes, as the n of their recalls show."""
    sizes = [each.n for name, each in scores.items() if name.startswith("recall@") and each.n]
    return gate.score == "accuracy" and "balanced_accuracy" in scores and unbalanced(sizes)


def check_robust(gates: Sequence[RobustGate], run: str, robust: AttackResult) -> None:
    """Raises GateNotMet if the robust accuracy is too low, ConfigError for a radius that was not
    attacked."""
    _all_met([gate.missed(run, robust.robust_accuracy(gate.eps)) for gate in gates])


def _all_met(sentences: Sequence[str | None]) -> None:
    missed = [sentence for sentence in sentences if sentence is not None]
    if missed:
        raise GateNotMet("\n".join(missed))
