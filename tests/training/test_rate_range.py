"""The learning-rate range test: its arithmetic, what it suggests, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.core.errors import ConfigError
from stresslens.report.learning_rates import rate_chart
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


def test_python_suggests_the_rate_of_the_command(
    type_: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    words = ("train", "digits", "linear", "--find-lr", "train.subset={images: 100}", "train.threads=1")
    told = json.loads(type_(*words, "--json")[1])
    shown: list[tuple[str, float, float]] = []
    found = sl.find_lr(
        "linear", "digits", subset={"images": 100}, threads=1, progress=lambda *each: shown.append(each)
    )
    assert found.suggestion == pytest.approx(told["suggestion"])
    assert [(each.seed, each.rates) for each in found.curves] == [
        (each["seed"], each["rates"]) for each in told["seeds"]
    ]
    assert found.lowest <= found.suggestion <= found.highest
    assert [row["seed"] for row in found] == [0, 1, 2]
    assert f"lr={found.suggestion:.2g} (" in repr(found)
    assert "Learning-rate range test" in found._repr_html_()
    assert shown[-1][1:] == (3, 3)


def test_python_tests_own_modules_and_losses_and_leaves_them(tmp_path: Path) -> None:
    def doubled(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 2 * nn.functional.cross_entropy(logits, y)

    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    before = net[1].weight.detach().clone()
    data = sl.Data.from_arrays(torch.rand(40, 1, 2, 2), [0, 1] * 20)
    found = sl.find_lr(net, data, seed=3, repeats=2, loss=doubled, progress=False)
    assert [each.seed for each in found.curves] == [3, 4]
    assert net[1].weight.equal(before)
    for wrong, message in (({"repeats": 0}, "repeats is 0"), ({"lrr": 1}, "did you mean 'lr'")):
        with pytest.raises(ConfigError, match=message):
            sl.find_lr("linear", data, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no updates"):
        sl.find_lr("knn", data)


def test_the_chart_has_a_tick_for_each_power_of_ten_and_says_what_it_rings() -> None:
    ranges = [RateRange(0, [1e-6, 1e-3, 0.5], [3, 2, 1]), RateRange(1, [1e-6, 1e-3], [3, 2])]
    drawn = rate_chart(ranges)
    assert [name for _, name in drawn.keys] == ["seed 0 (○ 0.05)", "seed 1 (○ 0.0001)"]
    assert all(f">{tick}</text>" in drawn.drawing for tick in ("1e−06", "0.0001", "0.01", "1"))
    assert drawn.drawing.count('class="ring') == 2
