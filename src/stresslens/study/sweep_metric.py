"""The metric of a sweep: whether it can compare all trials, and a trial's value with its interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from stresslens.config.schema import VariantConfig
from stresslens.config.selection_rules import RULES, SelectionRule
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.types import Estimate
from stresslens.metrics.intervals import wilson
from stresslens.training import best_epoch


def check_metric(
    asked: str,
    metric: SelectionRule,
    rules: Collection[SelectionRule | None],
    configs: Sequence[VariantConfig],
) -> None:
    """Raises ConfigError unless `metric`, which the sweep `asked` for or `auto` gave, can compare trials
    of these configurations. `rules` select their best epochs (None: the last)."""
    robust = [rule for rule in rules if rule is not None and rule.needs_robust_accuracy]
    if asked == "auto" and robust and len(rules) > 1:
        clean = ", ".join(rule.name for rule in RULES.values() if not rule.needs_robust_accuracy)
        raise ConfigError(
            "sweep.metric: some trials use adversarial training and others do not; "
            f"give the metric for all of them ({clean})"
        )
    losses = {str([config.train.loss, config.train.objective]) for config in configs}
    if metric.needs_equal_losses and len(losses) > 1:
        raise ConfigError(
            f"sweep.metric: {metric.name} compares the losses that trials are trained with, but "
            "the trials have different losses; use accuracy"
        )
    if metric.needs_robust_accuracy and len(robust) < len(rules):
        raise ConfigError(
            f"sweep.metric: {metric.name} needs train.select: robust, or an "
            "adversarial-training objective, in every trial"
        )


def estimate_on(validation: Split | None, value: float | None, metric: SelectionRule) -> Estimate | None:
    """A trial's value with its interval over the validation images; a loss has no interval."""
    if value is None or validation is None:
        return None
    n = min(len(validation), best_epoch.IMAGES) if metric.needs_robust_accuracy else len(validation)
    if not metric.is_share:
        return Estimate(value, math.nan, math.nan, n, "none")
    return wilson(round(value * n), n)
