"""The learning-rate range test: its arithmetic, what it suggests, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from stresslens.core.errors import ConfigError
from stresslens.training.rate_range import (
    HIGHEST,
    LOWEST,
    UPDATES,
    RateRange,
    central_rate,
    rate_range,
    smoothed,
)
from stresslens.training.task import Task


def test_smoothed_losses_of_a_constant_are_it() -> None:
    assert smoothed([3.0] * 7) == pytest.approx([3.0] * 7)
    first, second = smoothed([1.0, 2.0])
    assert (first, second) == pytest.approx((1.0, (0.9 * 0.1 * 1 + 0.1 * 2) / (1 - 0.81)))


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    ranges = [RateRange(0, [0.1, 1.0, 10.0], [3, 1, 2]), RateRange(1, [0.1, 1.0, 10.0], [3, 2, 1])]
    assert [each.suggestion for each in ranges] == [0.1, 1.0]
    assert central_rate(ranges) == pytest.approx(math.sqrt(0.1))


def test_rates_rise_by_equal_factors_and_nothing_is_written(task_of: Callable[..., Task]) -> None:
    task = task_of("linear", optimizer="sgd", batch_size=50, schedule="one_cycle")
    found = rate_range(task)
    factors = {round(b / a, 6) for a, b in zip(found.rates, found.rates[1:])}
    assert factors == {round((HIGHEST / LOWEST) ** (1 / (UPDATES - 1)), 6)}
    assert found.rates[0] == LOWEST
    assert 1e-3 < found.suggestion <= 1
    assert not task.folder.exists()
    again = rate_range(task)
    assert again == found


def test_a_run_without_updates_is_refused(task_of: Callable[..., Task]) -> None:
    with pytest.raises(ConfigError, match="no updates"):
        rate_range(task_of("linear", epochs=0))


def test_the_command_suggests_a_rate_and_draws_it(
    type_: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    words = ("train", "digits", "linear", "--find-lr", "train.subset={images: 100}", "train.threads=1")
    code, out, _ = type_(*words, "--json")
    assert code == 0
    told = json.loads(out)
    assert [each["seed"] for each in told["seeds"]] == [0, 1, 2]
    assert (tmp_path / told["chart"]).read_text().startswith("<svg")
    code, out, _ = type_(*words, "--seed", "4")
    assert "suggestion: train.lr=" in out
    assert "(1 seed)" in out
    code, _, err = type_("train", "digits", "knn", "--find-lr")
    assert code == 2
    assert "no updates" in err
