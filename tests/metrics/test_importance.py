"""Importance on tables where it is known: one setting decides, two share, none matters; and
recounted the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from stresslens.comparison import setting_importance
from stresslens.metrics import importance
from stresslens.metrics.importance import importances, ranks

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "TREES", 15)
    monkeypatch.setattr(importance, "REPEATS", 2)


def test_one_setting_that_decides_everything_has_nearly_the_whole_share() -> None:
    x = RNG.random((60, 3))
    found = importances({"a": x[:, [0]], "b": x[:, [1]], "c": x[:, [2]]}, ranks(x[:, 0]))
    assert found["a"].share.value > 0.85
    assert found["a"].real
    for other in ("b", "c"):
        assert not found[other].real
        assert found[other].share.value < 0.02


def test_two_settings_that_decide_alike_share() -> None:
    x = RNG.random((160, 2))
    found = importances({"a": x[:, [0]], "b": x[:, [1]]}, x.sum(1))
    for name in ("a", "b"):
        assert 0.35 < found[name].share.value < 0.6
        assert found[name].real


def test_what_does_not_differ_has_no_share() -> None:
    found = importances({"a": RNG.random((10, 1))}, np.zeros(10))
    assert (found["a"].share.value, found["a"].p, found["a"].real) == (0.0, 1.0, False)


def test_recounted_one_trial_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "REPEATS", 1)
    n = 11
    columns = {"number": RNG.random((n, 1)), "choice": np.eye(3)[RNG.integers(0, 3, n)]}
    y = RNG.random(n)
    found = importances(columns, y)
    order = np.random.default_rng(0).permutation(n)
    rises: dict[str, list[float]] = {"number": [], "choice": []}
    for fold in range(importance.FOLDS):
        out = order[fold :: importance.FOLDS]
        kept = [i for i in range(n) if i not in out]
        table = [[*columns["number"][i], *columns["choice"][i]] for i in range(n)]
        forest = RandomForestRegressor(importance.TREES, random_state=0).fit(
            [table[i] for i in kept], y[kept]
        )
        for i in out:
            own = (y[i] - forest.predict([table[i]])[0]) ** 2
            for name, places in (("number", (0,)), ("choice", (1, 2, 3))):
                errors = []
                for j in range(n):
                    row = list(table[i])
                    for place in places:
                        row[place] = table[j][place]
                    errors.append((y[i] - forest.predict([row])[0]) ** 2)
                rises[name].append(float(np.mean(errors) - own) / (2 * float(y.var())))
    for name, values in rises.items():
        mean, error = np.mean(values), np.std(values, ddof=1) / n**0.5
        assert found[name].share.value == pytest.approx(max(0.0, mean), abs=1e-9)
        assert found[name].share.low == pytest.approx(
            max(0.0, mean - 2.2281 * error), abs=1e-4
        )  # t of 10 degrees


def test_in_words() -> None:
    n = 24
    rates = np.logspace(-4, 0, n)
    settings = [
        {"train.lr": float(rate), "train.optimizer": {"adam": {"weight_decay": k % 2}}, "train.epochs": 3}
        for k, rate in enumerate(rates)
    ]
    standings: list[setting_importance.Standing] = [(1.0, float(k)) for k in range(n)]
    told = setting_importance.importance_verdicts(settings, standings)
    assert [row.setting for row in told.rows] == ["train.lr", "train.optimizer"]
    assert told.said[0].startswith("train.lr explains most of the differences in how trials did (0.")
    assert told.said[0].endswith("over 24 trials)")
    assert (
        told.said[1]
        == "train.optimizer is not distinguishable from settings of no influence (over 24 trials)"
    )
    assert len(told.said) == 2
    few = setting_importance.importance_verdicts(settings[::2], standings[::2]).said
    assert few[-1] == (
        "with 12 trials only a setting that decides nearly everything can be detected; "
        "20 or more are needed for the rest"
    )
    (none,) = setting_importance.importance_verdicts(settings[:7], standings[:7]).said
    assert (
        none == "7 different trials are too few to tell which settings matter; 8 are the least, 20 are better"
    )
    same = setting_importance.importance_verdicts([{"train.lr": 0.1}] * 9, standings[:9])
    assert same.said == ["no setting took more than one value"]


def test_a_trial_that_diverged_counts_as_the_worst_and_not_as_a_number() -> None:
    settings = [{"k": k} for k in range(10)]
    plain = setting_importance.importance_verdicts(settings, [(1.0, float(k)) for k in range(10)])
    worst = setting_importance.importance_verdicts(
        settings, [(-1.0, 0.0), *((1.0, 1e9 * k) for k in range(1, 10))]
    )
    assert plain == worst
