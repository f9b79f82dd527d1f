"""How often importance calls a setting real: where none matters, and where one of three decides.

    python benchmarks/importance.py          # about 10 minutes on one core

Tables of trials with three settings, uniform in [0, 1]. Without influence the outcome is noise
alone; else it is -4 (x - 0.4)² of the first setting and noise of deviation 0.1, a quarter of the
outcome's own. Prints how often each setting is called real after Holm, and its mean share.
"""

from __future__ import annotations

import numpy as np

from stresslens.metrics.importance import importances, ranks


def simulated(trials: int, tables: int, *, decides: bool) -> None:
    real, shares = np.zeros(3, dtype=int), np.zeros(3)
    for table in range(tables):
        numbers = np.random.default_rng(table)
        x = numbers.random((trials, 3))
        outcome = (
            -4 * (x[:, 0] - 0.4) ** 2 + numbers.normal(0, 0.1, trials)
            if decides
            else numbers.normal(0, 1, trials)
        )
        found = importances({name: x[:, [place]] for place, name in enumerate("abc")}, ranks(outcome))
        real += [each.real for each in found.values()]
        shares += [each.share.value / tables for each in found.values()]
    kind = "the first decides " if decides else "none has influence"
    print(
        f"{kind}, {trials} trials, n = {tables} tables: called real {real.tolist()}, mean share "
        f"{shares.round(2).tolist()}"
    )


if __name__ == "__main__":
    simulated(20, 150, decides=False)
    for size in (12, 20):
        simulated(size, 40, decides=True)
