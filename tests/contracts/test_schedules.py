"""Every schedule, step by step; warnings are errors, so torch's about the order of calls would fail here."""

from __future__ import annotations

import io
import math
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_steps import LIBRARIES
from torch import nn

from stresslens.config import registry
from stresslens.config.schema import Train
from stresslens.core.errors import ConfigError
from stresslens.training.optimization import build_schedule

LR = 0.4
VALUES: list[Any] = [
    *registry.names("schedules"),
    {"cosine": {"floor": 0.1}},
    {"step": {"every": 2, "factor": 0.5}},
    {"one_cycle": {"rise": 0.5}},
    *(
        {"warmup": {"share": 0.3, "then": name}}
        for name in registry.names("schedules")
        if name not in ("warmup", "one_cycle", "plateau", "warmup_stable_decay")
    ),
    *({name: {"floor": 0.1}} for name in ("restarts", "polynomial", "warmup_stable_decay", "plateau")),
    {"restarts": {"period": 1, "growth": 1}},
    {"warmup_stable_decay": {"warmup": 0, "decay": 0.5, "shape": "cosine"}},
    {"polynomial": {"power": 0.9}},
]
every = pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value).replace("'", ""))


def started(
    value: Any, steps: int, per_epoch: int = 5, optimizer: str = "sgd"
) -> tuple[torch.optim.Optimizer, Any]:
    value_of = {optimizer: LIBRARIES.get(optimizer, {})}
    made = registry.resolve("optimizers", value_of)(parameters=[nn.Parameter(torch.zeros(2))], lr=LR)
    return made, registry.resolve("schedules", value)(optimizer=made, steps=steps, steps_per_epoch=per_epoch)


def rates(optimizer: torch.optim.Optimizer, schedule: Any, steps: int) -> list[float]:
    """The learning rate of each update, as the loop makes them: optimizer, then schedule."""
    found = []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
        optimizer.step()
        schedule.step()
    return found


def course(value: Any, steps: int, per_epoch: int = 5) -> list[float]:
    return rates(*started(value, steps, per_epoch), steps)


@pytest.mark.breadth
@every
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9, 19, 50])
def test_rates_are_finite_and_never_above_the_one_given(value: Any, steps: int) -> None:
    found = course(value, steps)
    assert all(math.isfinite(rate) and 0 <= rate <= LR * (1 + 1e-9) for rate in found)
    assert max(found) > 0


@pytest.mark.breadth
@every
@pytest.mark.parametrize("optimizer", registry.names("optimizers"))
def test_a_schedule_drives_every_optimizer(value: Any, optimizer: str) -> None:
    assert rates(*started(value, 8, optimizer=optimizer), 8) == pytest.approx(course(value, 8))


@pytest.mark.breadth
@every
@pytest.mark.parametrize("stop", [1, 6, 14])
def test_a_saved_state_goes_on_identically(value: Any, stop: int) -> None:
    """Through a file that is read without executing anything, as checkpoints are."""
    optimizer, schedule = started(value, 20)
    first = rates(optimizer, schedule, stop)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), schedule.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    resumed_optimizer, resumed = started(value, 20)
    resumed_optimizer.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    assert first + rates(resumed_optimizer, resumed, 20 - stop) == course(value, 20)


@pytest.mark.parametrize("steps", [2, 9, 40])
@pytest.mark.parametrize("rise", [0.1, 0.2, 0.25, 0.3, 0.5, 0.9])
def test_one_cycle_works_for_every_rise(steps: int, rise: float) -> None:
    found = course({"one_cycle": {"rise": rise}}, steps)
    assert all(0 <= rate <= LR * (1 + 1e-9) for rate in found)


@pytest.mark.parametrize(("rise", "steps"), [(0.5, 1), (0.25, 3), (0.2, 4), (0.1, 9)])
def test_one_cycle_works_where_the_rise_is_one_step(rise: float, steps: int) -> None:
    assert all(math.isfinite(rate) for rate in course({"one_cycle": {"rise": rise}}, steps))


def test_constant_stays() -> None:
    assert course("constant", 30) == [LR] * 30


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_is_half_a_cosine(floor: float) -> None:
    steps = 40
    optimizer, schedule = started({"cosine": {"floor": floor}}, steps)
    found = [*rates(optimizer, schedule, steps), optimizer.param_groups[0]["lr"]]
    expected = [floor + (LR - floor) * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps + 1)]
    assert found == pytest.approx(expected, abs=1e-9)


def test_step_falls_after_every_so_many_epochs() -> None:
    found = course({"step": {"every": 2, "factor": 0.5}}, 30, per_epoch=5)
    assert found == pytest.approx([LR * 0.5 ** (t // 10) for t in range(30)])
    assert course("step", 40, per_epoch=1) == pytest.approx([LR] * 30 + [LR / 10] * 10)


@pytest.mark.parametrize(("rise", "start"), [(0.3, 25.0), (0.5, 10.0)])
def test_one_cycle_rises_to_its_peak_and_falls_to_nearly_nothing(rise: float, start: float) -> None:
    steps = 99
    optimizer, schedule = started({"one_cycle": {"rise": rise, "start": start}}, steps)
    found = rates(optimizer, schedule, steps)
    peak = max(range(steps), key=lambda t: found[t])
    assert found[0] == pytest.approx(LR / start)
    assert abs(peak - (rise * (steps + 1) - 1)) < 1
    assert found[peak] == pytest.approx(LR, rel=1e-2)
    assert all(a < b for a, b in pairwise(found[: peak + 1]))
    assert all(a > b for a, b in pairwise(found[peak:]))
    assert optimizer.param_groups[0]["lr"] < LR / start / 1000


def test_warmup_rises_in_a_line_then_the_other_takes_over() -> None:
    steps, rising = 50, 10
    found = course({"warmup": {"share": 0.2, "then": "cosine"}}, steps)
    assert found[: rising + 1] == pytest.approx([LR * (t + 1) / (rising + 1) for t in range(rising + 1)])
    expected = [LR * (1 + math.cos(math.pi * t / (steps - rising))) / 2 for t in range(steps - rising)]
    assert found[rising:] == pytest.approx(expected, abs=1e-9)


def test_warmup_then_constant_stays_at_the_learning_rate() -> None:
    found = course({"warmup": {"share": 0.2, "then": "constant"}}, 50)
    assert found[9] < found[10]
    assert found[10:] == pytest.approx([LR] * 40)


def test_warmup_then_step_counts_from_the_end_of_the_rise() -> None:
    found = course({"warmup": {"share": 0.2, "then": {"step": {"every": 4}}}}, 50, per_epoch=5)
    assert found[10:] == pytest.approx([LR] * 20 + [LR / 10] * 20)


def test_warmup_has_at_least_one_step() -> None:
    found = course({"warmup": {"share": 0.01}}, 10)
    assert found[0] == pytest.approx(LR / 2)
    assert found[1] == pytest.approx(LR)


def test_warmup_follows_ones_own_schedule_or_refuses_it(tmp_path: Any) -> None:
    text = """
class Third:
    def __init__(self, optimizer): self.optimizer = optimizer
    def step(self): self.optimizer.param_groups[0]["lr"] /= 3
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

def third(optimizer):
    "A third of it after each step."
    return Third(optimizer)
"""
    (tmp_path / "own.py").write_text(text)
    optimizer, _ = started("constant", 10)
    bound = registry.resolve("schedules", {"warmup": {"share": 0.2, "then": "own.py:third"}}, base=tmp_path)
    try:
        found = rates(optimizer, bound(optimizer=optimizer, steps=10, steps_per_epoch=5), 10)
    except ConfigError:
        found = [1.0, 0.0]
    assert found[-1] < found[-2]  # not silently the learning rate all along


def test_a_warning_of_the_training_is_not_repeated_at_every_step_of_a_warmup() -> None:
    optimizer, schedule = started({"warmup": {"share": 0.2}}, 50)
    registry_of_warnings: dict[Any, Any] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for step in range(50):
            warnings.warn_explicit("of the network", UserWarning, "net.py", 1, registry=registry_of_warnings)
            if step == 5:
                assert len(caught) == 1
            optimizer.step()
            schedule.step()
    assert len(caught) <= 2


def grouped_rates(value: Any, steps: int, shares: tuple[float, ...]) -> list[list[float]]:
    """The learning rates of several groups, with the given shares of LR, at each step and at the end."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": LR * share} for share in shares]
    optimizer = registry.resolve("optimizers", "sgd")(parameters=groups, lr=LR)
    schedule = registry.resolve("schedules", value)(optimizer=optimizer, steps=steps, steps_per_epoch=5)
    found = [[float(group["lr"]) for group in optimizer.param_groups]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        found.append([float(group["lr"]) for group in optimizer.param_groups])
    return found


@every
def test_a_schedule_keeps_the_ratios_of_layer_wise_rates(value: Any) -> None:
    shares = (0.01, 0.3, 1.0, 4.0)
    for rates_of_groups in grouped_rates(value, 20, shares):
        assert rates_of_groups == pytest.approx([rates_of_groups[2] * share for share in shares], abs=1e-12)


def test_the_floor_of_cosine_belongs_to_the_learning_rate() -> None:
    steps = 20
    alone = grouped_rates({"cosine": {"floor": 0.1}}, steps, (1.0,))
    grouped = grouped_rates({"cosine": {"floor": 0.1}}, steps, (0.5, 1.0))
    assert [rates[1] for rates in grouped] == pytest.approx([rates[0] for rates in alone])
    assert grouped[-1] == pytest.approx([0.05, 0.1])


@pytest.mark.parametrize("then", ["one_cycle", {"one_cycle": {"rise": 0.1}}, "warmup"])
def test_warmup_refuses_a_schedule_that_rises_by_itself(then: Any) -> None:
    with pytest.raises(ConfigError, match="warmup rises to the learning rate") as refused:
        started({"warmup": {"share": 0.2, "then": then}}, 50)
    assert ("its option `rise`" in str(refused.value)) == (then != "warmup")


PLATEAU = "torch.optim.lr_scheduler:ReduceLROnPlateau"


def test_a_schedule_that_needs_a_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup can only be followed by .* needs no metric"):
        started({"warmup": {"then": PLATEAU}}, 50)
    optimizer, _ = started("constant", 10)
    with pytest.raises(ConfigError, match="gets none; take the built-in plateau"):
        build_schedule(Train(schedule=PLATEAU), optimizer, 5, Path())


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_restarts_are_torchs(growth: int) -> None:
    steps = 100
    found = course({"restarts": {"period": 2, "growth": growth, "floor": 0.1}}, steps)
    optimizer, _ = started("constant", steps)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, growth, eta_min=0.1)
    assert found == pytest.approx(rates(optimizer, theirs, steps), abs=1e-9)


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_polynomial_is_torchs(power: float) -> None:
    optimizer, _ = started("constant", 40)
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimizer, 40, power)
    assert course({"polynomial": {"power": power}}, 40) == pytest.approx(rates(optimizer, theirs, 40))


def test_exponential_is_torchs_after_whole_epochs() -> None:
    found = course({"exponential": {"factor": 0.9}}, 30, per_epoch=5)
    optimizer, _ = started("constant", 30)
    assert found[::5] == pytest.approx(
        rates(optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9), 6)
    )
    assert found == pytest.approx([LR * 0.9 ** (t / 5) for t in range(30)])


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_warmup_stable_decay_has_three_parts(shape: str, floor: float) -> None:
    steps, rising, falling = 100, 10, 25
    options = {"warmup": 0.1, "decay": 0.25, "shape": shape, "floor": floor}
    optimizer, schedule = started({"warmup_stable_decay": options}, steps)
    found = [*rates(optimizer, schedule, steps), float(optimizer.param_groups[0]["lr"])]
    assert found[:rising] == pytest.approx([LR * (t + 1) / (rising + 1) for t in range(rising)])
    assert found[rising : steps - falling + 1] == pytest.approx([LR] * (steps - rising - falling + 1))
    falls = {"linear": lambda x: 1 - x, "sqrt": lambda x: 1 - x**0.5}
    falls["cosine"] = lambda x: (1 + math.cos(math.pi * x)) / 2
    expected = [floor + (LR - floor) * falls[shape](t / falling) for t in range(falling + 1)]
    assert found[steps - falling :] == pytest.approx(expected, abs=1e-12)


def test_warmup_and_decay_longer_than_the_training_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup 0.6 and decay 0.5 are 1.1 of all steps"):
        started({"warmup_stable_decay": {"warmup": 0.6, "decay": 0.5}}, 10)


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_plateau_is_torchs(metric: str) -> None:
    """Fed with figures that stop improving, from a file in between."""
    figures = [1.0, 0.5, 0.4, 0.4, 0.4, 0.39999, 0.4, 0.4, 0.4, 0.4]
    figures = [1 - value for value in figures] if metric == "accuracy" else figures
    value = {"plateau": {"metric": metric, "factor": 0.5, "patience": 1, "floor": 0.12}}
    optimizer, schedule = started(value, 50)
    other, _ = started("constant", 50)
    mode = "min" if metric == "loss" else "max"
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(other, mode, 0.5, 1, min_lr=0.12)
    found, expected = [], []
    for figure in figures:
        schedule.step()
        schedule.after_evaluation({metric: figure})
        theirs.step(figure)
        found.append(optimizer.param_groups[0]["lr"])
        expected.append(other.param_groups[0]["lr"])
        state = schedule.state_dict()
        schedule = started(value, 50)[1]
        schedule.load_state_dict(state)
        schedule.inner.optimizer = optimizer
    assert found == expected
    assert found[-1] == 0.12
