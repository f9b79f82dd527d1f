"""Quality gates for CI (`--fail-under`): `accuracy=0.97`, `accuracy.low=0.97` for the lower end of
the interval, `robust@8/255=0.4` for an attacked run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stresslens.core.ball import parse_radius, same_radius
from stresslens.core.errors import ConfigError, GateNotMet
from stresslens.core.spelling import closest
from stresslens.core.types import Estimate
from stresslens.robustness.result import AttackResult

SCORES = (
    *("accuracy", "accuracy_without_copies", "top5", "balanced_accuracy", "auroc", "auprc"),
    *("macro_precision", "macro_f1", "weighted_precision", "weighted_f1"),
)
"""Those of which more is better."""


@dataclass(frozen=True)
class Gate:
    """The value that a score, or the lower end of its interval, must reach."""

    score: str
    least: float
    of_low: bool

    def missed(self, run: str, estimate: Estimate) -> str | None:
        """A sentence when it is not met. A score that is not known (NaN) does not meet it."""
        value = estimate.low if self.of_low else estimate.value
        if value >= self.least:
            return None
        if self.of_low:
            over = f"{estimate.value:.4f}, {estimate.level * 100:g} % interval, n = {estimate.n}"
            return f"{run}: the lower end of {self.score} is {value:.4f} ({over}), below {self.least:g}"
        return f"{run}: {self.score} {value:.4f} is below {self.least:g}"


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


def parsed(texts: Sequence[str]) -> list[Gate]:
    """The gates of `score=value` and `score.low=value`. Raises ConfigError."""
    gates = []
    for text in texts:
        name, _, value = text.partition("=")
        score = name.removesuffix(".low")
        if score not in SCORES:
            raise ConfigError(f"--fail-under {text}: {closest(score, list(SCORES))}")
        gates.append(
            Gate(
                score,
                _share(text, value, "score=value, for example accuracy=0.97 or accuracy.low=0.97"),
                name != score,
            )
        )
    return gates


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
        gates.append(RobustGate(radius, _share(text, value, form)))
    return gates


def _share(text: str, value: str, form: str) -> float:
    try:
        share = float(value)
    except ValueError:
        raise ConfigError(f"--fail-under {text}: expected {form}") from None
    if not 0 <= share <= 1:
        raise ConfigError(f"--fail-under {text}: the least is a share from 0 to 1 (60 % is 0.6)")
    return share


def check_known(gates: Sequence[Gate], run: str, scores: Mapping[str, Estimate]) -> None:
    """Raises ConfigError for a score that a run does not have, as top5 of two classes, or any
    without a test split."""
    for gate in gates:
        if gate.score not in scores:
            raise ConfigError(
                f"--fail-under {gate.score}: {run} has no such score; it has {', '.join(scores) or 'none'}"
            )


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


def check(gates: Sequence[Gate], finished: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Raises GateNotMet, naming every run that misses one, and ConfigError for a score that a run
    does not have."""
    for run, scores in finished.items():
        check_known(gates, run, scores)
    _all_met([gate.missed(run, scores[gate.score]) for gate in gates for run, scores in finished.items()])


def check_robust(gates: Sequence[RobustGate], run: str, robust: AttackResult) -> None:
    """Raises GateNotMet if the robust accuracy is too low, ConfigError for a radius that was not
    attacked."""
    _all_met([gate.missed(run, robust.robust_accuracy(gate.eps)) for gate in gates])


def _all_met(sentences: Sequence[str | None]) -> None:
    missed = [sentence for sentence in sentences if sentence is not None]
    if missed:
        raise GateNotMet("\n".join(missed))
