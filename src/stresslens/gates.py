"""Figures that a build asks for: `--fail-under accuracy=0.97`, or `accuracy.low=0.97` for the lower end of the interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stresslens.core.errors import ConfigError, GateNotMet, closest
from stresslens.core.types import Estimate

SCORES = ("accuracy", "top5", "balanced_accuracy", "auroc", "auprc")
"""Those of which more is better."""


@dataclass(frozen=True)
class Gate:
    """The least that a score, or the lower end of its interval, must reach."""

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


def parsed(texts: Sequence[str]) -> list[Gate]:
    """The gates of `score=value` and `score.low=value`. Raises ConfigError."""
    gates = []
    for text in texts:
        name, _, value = text.partition("=")
        score = name.removesuffix(".low")
        if score not in SCORES:
            raise ConfigError(f"--fail-under {text}: {closest(score, list(SCORES))}")
        try:
            least = float(value)
        except ValueError:
            raise ConfigError(
                f"--fail-under {text}: expected score=value, for example accuracy=0.97 or accuracy.low=0.97"
            ) from None
        if not 0 <= least <= 1:
            raise ConfigError(f"--fail-under {text}: {score} lies between 0 and 1")
        gates.append(Gate(score, least, name != score))
    return gates


def check_known(gates: Sequence[Gate], run: str, scores: Mapping[str, Estimate]) -> None:
    """Raises ConfigError for a score that a run does not have, as top5 of two classes, or any without a test split."""
    for gate in gates:
        if gate.score not in scores:
            raise ConfigError(f"--fail-under {gate.score}: {run} has no such score; it has {', '.join(scores) or 'none'}")


def check(gates: Sequence[Gate], finished: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Raises GateNotMet, naming every run that misses one, and ConfigError for a score that a run does not have."""
    for run, scores in finished.items():
        check_known(gates, run, scores)
    sentences = [gate.missed(run, scores[gate.score]) for gate in gates for run, scores in finished.items()]
    missed = [sentence for sentence in sentences if sentence is not None]
    if missed:
        raise GateNotMet("\n".join(missed))
