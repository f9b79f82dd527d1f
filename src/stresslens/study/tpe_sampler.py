"""Settings that TPE draws (Bergstra et al. 2011, by Optuna) from the trials so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stresslens.config.search_space import Number, Setting
from stresslens.core.extras import extra

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class DrawnTrial:
    """A trial as TPE sees it: the numbers that were drawn for it, by setting, and its value. An ended
    trial without a value failed."""

    drawn: dict[str, Number]
    ended: bool
    value: float | None


def tpe_draw(
    settings: Sequence[Setting], trials: Sequence[DrawnTrial], seed: int, *, largest: bool
) -> Callable[[], dict[str, Number]]:
    """A function that draws a number for each setting of the next trial, and others each time.

    `largest` says whether a larger value is better. A trial under way counts as a bad one. The first
    ten trials are drawn at random. Optuna keeps nothing: it is told all trials each time.
    """
    with extra("sweep", "sweep.method: tpe"):
        import optuna
        from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {setting.key: distribution(setting) for setting in settings}
    study = optuna.create_study(direction="maximize" if largest else "minimize")
    for trial in trials:
        state = TrialState.COMPLETE if trial.value is not None else TrialState.PRUNED
        study.add_trial(
            create_trial(
                state=state if trial.ended else TrialState.RUNNING,
                value=trial.value,
                params=trial.drawn,
                distributions=distributions,
            )
        )
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False, constant_liar=True)
    asked = create_trial(state=TrialState.RUNNING)
    asked.number = len(trials)

    def draw() -> dict[str, Number]:
        return {
            key: sampler.sample_independent(study, asked, key, space) for key, space in distributions.items()
        }

    return draw


def distribution(setting: Setting) -> BaseDistribution:
    """The Optuna distribution of a setting. Of choices it holds the indices, because a choice may be a
    plug-in with its options."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if setting.range is None:
        return CategoricalDistribution(range(len(setting.choices)))
    start, to, step, log = setting.range.start, setting.range.to, setting.range.step, setting.range.log
    if setting.whole:
        return IntDistribution(int(start), int(to), log=log, step=int(step or 1))
    return FloatDistribution(start, to, log=log, step=step)
