"""The key `sweep:`: what is drawn lies in the space, and every mistake is told with its line before
any training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import RandomState

from stresslens.config import study_file
from stresslens.config.dotted_keys import get_dotted
from stresslens.config.search_space import Constraint, Halving, Sweep, space_settings
from stresslens.config.sweep_validation import check_sweep
from stresslens.core.errors import ConfigError, Problem
from stresslens.study.tpe_sampler import distribution


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        study_file.read_study(file, overrides)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


@pytest.mark.breadth(15)
@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("{}", "sweep: give either a space to draw settings from, or a list of settings"),
        ("{space: {}}", "sweep.space: is empty; name at least one setting to try"),
        ("{settings: []}", "sweep.settings: is empty"),
        ("{space: {train.lr: []}}", "sweep.space.train.lr: the list of choices is empty"),
        (
            "{space: {train.lr: 0.1}}",
            "sweep.space.train.lr: expected a list of choices, or {from: …, to: …}, got 0.1",
        ),
        ("{space: {train.lrr: [0.1, 1]}}", "sweep.space.train.lrr: unknown key; did you mean 'lr'?"),
        (
            "{space: {trian.lr: [0.1, 1]}}",
            "sweep.space.trian.lr: a sweep varies settings of these sections only; did you mean 'train'?",
        ),
        (
            "{space: {train.lr: {from: 0.1, too: 1}}}",
            "sweep.space.train.lr.too: unknown key; did you mean 'to'?",
        ),
        ("{space: {train.lr: {form: 0.1, to: 1}}}", "sweep.space.train.lr"),
        (
            "{space: {train.lr: {from: 1, to: 0.1}}}",
            "sweep.space.train.lr: from must lie below to, got 1 and 0.1",
        ),
        ("{space: {train.lr: {from: 0, to: 0.1, log: true}}}", "log needs numbers above 0, and from is 0"),
        (
            "{space: {train.lr: {from: 0, to: 0.1}}}",
            "sweep.space.train.lr.from: input should be greater than 0, got 0",
        ),
        (
            "{space: {train.batch_size: {from: 16, to: 250, step: 16}}}",
            "steps of 16 from 16 do not end at 250",
        ),
        (
            "{space: {train.optimizer: [adam, adamm]}}",
            "sweep.space.train.optimizer.1: no optimizer is called 'adamm'; did you mean",
        ),
        (
            "{space: {train.optimizer: {choices: [adam], choice: 1}}}",
            "sweep.space.train.optimizer.choice: unknown key",
        ),
        (
            "{space: {model.hiden: [5, 6]}}",
            "sweep.space.model.hiden: simple_cnn has no option 'hiden'; did you mean 'hidden'?",
        ),
        (
            "{space: {model: [linear], model.hidden: [5]}}",
            "sweep.space.model.hidden: the sweep also varies model; write this option inside",
        ),
        (
            "{space: {train.precision: [float32]}}",
            "sweep.space.train.precision: train.precision is the same in all trials",
        ),
        ("{space: {data: [digits]}}", "sweep.space.data: a sweep varies settings of these sections only"),
        (
            "{space: {train.lr: [0.1]}, trials: 0}",
            "sweep.trials: input should be greater than or equal to 1, got 0",
        ),
        ("{space: {train.lr: [0.1]}, methd: tpe}", "sweep.methd: unknown key; did you mean 'method'?"),
        (
            "{space: {train.lr: [0.1]}, method: bayes}",
            "sweep.method: input should be 'random', 'tpe' or 'halving', got 'bayes'",
        ),
        (
            "{space: {train.lr: [0.1]}, method: halving, halving: {factor: 1}}",
            "sweep.halving.factor: input should be greater than",
        ),
        (
            "{space: {train.lr: [0.1]}, method: halving, halving: {epoch: 1}}",
            "sweep.halving.epoch: unknown key; did you mean 'epochs'?",
        ),
        (
            "{space: {train.lr: [0.1]}, method: halving, halving: {epochs: 10}}",
            "its epochs must be fewer than train.epochs (10), got 10",
        ),
        (
            "{space: {train.lr: [0.1]}, halving: {epochs: 2}}",
            "sweep.halving: has no effect with the method random; leave it out, or",
        ),
        (
            "{space: {train.epochs: [1, 5]}, method: halving}",
            "halving decides how many epochs a trial is trained",
        ),
        (
            "{space: {train.lr: [0.1]}, where: [train.lr]}",
            "sweep.where.0: 'train.lr' is not a comparison; write",
        ),
        (
            "{space: {train.lr: [0.1]}, where: ['train.lrr < 1']}",
            "sweep.where: 'train.lrr < 1': the configuration does not set train.lrr",
        ),
        (
            "{space: {train.lr: [0.1]}, where: ['train.lr < 0.05']}",
            "none of 2,000 random settings of the space satisfies it",
        ),
        (
            "{space: {train.batch_size: [8, full]}, where: ['train.batch_size < 9']}",
            "'train.batch_size < 9': 'full' and 9 have no order; compare numbers, or use == or !=",
        ),
        (
            "{settings: [{train.lr: 0.1}, {train.lr: -1}]}",
            "sweep.settings.1.train.lr: input should be greater than 0, got -1",
        ),
        (
            "{settings: [{train.lr: 0.1}], trials: 3}",
            "sweep.trials: applies to a space only; each of the listed settings is one trial",
        ),
        ("{settings: [{train.lr: 0.1}], method: tpe}", "sweep.method: applies to a space only"),
        (
            "{space: {train.batch_size: [full], train.accumulate: [2, 3]}}",
            "there are no batches to accumulate when batch_size is full",
        ),
    ],
)
def test_a_bad_sweep_is_told_before_any_training(tmp_path: Path, sweep: str, message: str) -> None:
    found = problems(tmp_path, f"data: digits\nsweep: {sweep}\n")
    assert any(line.startswith("study.yaml:2: ") and message in line for line in found), found


def test_a_setting_is_tried_or_set_and_not_both(tmp_path: Path) -> None:
    text = "sweep: {space: {train.lr: [0.1, 1]}}\n"
    (told,) = problems(tmp_path, text + "grid: {train.lr: [0.2]}\n")
    assert told == (
        "study.yaml:1: sweep.space.train.lr: the sweep varies it, and grid train.lr 0 sets it; remove one "
        "of the two"
    )
    (told,) = problems(tmp_path, text, "train.lr=0.3")
    assert "the command line sets it" in told
    assert "divisions" not in told
    (told,) = problems(tmp_path, text + "repeats: {folds: 3}\n")
    assert "the validation images of one split are test images of another" in told
    (told,) = problems(tmp_path, text + "train: {watch: [train]}\n")
    assert "trials are compared on the validation split" in told


def test_every_mistake_of_a_sweep_at_once_each_on_its_line(tmp_path: Path) -> None:
    text = (
        "sweep:\n  space:\n    train.lr: {from: 2, to: 1}\n    train.optimizer: []\n"
        "    model.widht: [3]\n    data: [digits]\n"
    )
    found = problems(tmp_path, text)
    assert [line.split(":")[1] for line in found] == ["3", "4", "6"]


NUMBERS = st.floats(1e-6, 1e6)


@given(
    st.tuples(NUMBERS, NUMBERS).filter(lambda ends: ends[0] < ends[1]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_what_is_drawn_from_a_range_lies_in_it(ends: tuple[float, float], log: bool, seed: int) -> None:
    low, high = ends
    (setting,) = space_settings(Sweep(space={"train.lr": {"from": low, "to": high, "log": log}}), [])
    for value in (
        setting.draw(RandomState(seed)),
        setting.value(low),
        setting.value(high),
        setting.value((low + high) / 2),
    ):
        assert low <= value <= high
        assert value in (low, high) or value == float(f"{value:.4g}")


@given(st.integers(-50, 50), st.integers(1, 9), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_steps_arrive_at_whole_places(start: int, step: int, steps: int, seed: int) -> None:
    (setting,) = space_settings(
        Sweep(space={"k": {"from": start, "to": start + step * steps, "step": step}}), []
    )
    value = setting.draw(RandomState(seed))
    assert isinstance(value, int)
    assert (value - start) % step == 0
    assert start <= value <= start + step * steps
    assert distribution(setting).to_internal_repr(start + step * steps) == start + step * steps


SPACES: dict[str, Any] = {
    "numbers": {"from": 0.25, "to": 9},
    "numbers below zero": {"from": -3.5, "to": -1.25},
    "decades": {"from": 1e-5, "to": 0.3, "log": True},
    "steps": {"from": 0.1, "to": 0.7, "step": 0.05},
    "whole numbers": {"from": 1, "to": 9},
    "whole steps": {"from": 16, "to": 512, "step": 16},
    "whole decades": {"from": 1, "to": 4096, "log": True},
    "one choice": [3],
    "choices": ["a", "b", {"c": 1}, None],
}


@pytest.mark.breadth(3)
@pytest.mark.parametrize("name", SPACES)
def test_the_numbers_are_those_that_earlier_versions_drew_with_optuna(name: str) -> None:
    (setting,) = space_settings(Sweep(space={"k": SPACES[name]}), [])
    study, trial = optuna.create_study(), optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    for seed in range(200):
        sampler = optuna.samplers.RandomSampler(seed=seed)
        numbers = RandomState(seed)
        for _ in range(2):
            drawn = setting.number(numbers)
            assert drawn == sampler.sample_independent(study, trial, "k", distribution(setting))
            assert setting.holds(drawn)


def test_a_logarithmic_range_is_drawn_evenly_over_its_decades() -> None:
    (setting,) = space_settings(Sweep(space={"train.lr": {"from": 1e-4, "to": 1.0, "log": True}}), [])
    numbers = RandomState(0)
    drawn = [setting.draw(numbers) for _ in range(4000)]
    shares = [sum(10**k <= value < 10 ** (k + 1) for value in drawn) / 4000 for k in (-4, -3, -2, -1)]
    assert all(abs(share - 0.25) < 3 * math.sqrt(0.25 * 0.75 / 4000) for share in shares), shares


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("train.batch_size <= 64", True),
        ("train.batch_size < 64", False),
        ("train.batch_size >= train.epochs", True),
        ("train.optimizer == adam", True),
        ("train.optimizer != adam", False),
        ("train.clip == null", True),
        ("model == mlp", True),
        ("train.lr > 1e-4", True),
    ],
)
def test_constraints(text: str, holds: bool) -> None:
    left, comparison, right = text.split()
    values = {
        "model": {"mlp": {"widths": [3]}},
        "train": {
            "batch_size": 64,
            "epochs": 10,
            "optimizer": {"adam": {"weight_decay": 0.1}},
            "clip": None,
            "lr": 0.001,
        },
    }
    assert Constraint(text, left, comparison, right).holds(values) is holds


def test_a_dotted_key_is_read_as_it_is_set() -> None:
    values: dict[str, Any] = {
        "model": {"mlp": {"widths": [3]}},
        "train": {"optimizer": "adam", "stop": {"patience": 2}},
    }
    assert get_dotted(values, "model.widths") == get_dotted(values, "model.mlp.widths") == [3]
    assert get_dotted(values, "train.stop.patience") == 2
    for absent in ("model.hidden", "train.optimizer.weight_decay", "train.lr", "modle"):
        with pytest.raises(KeyError):
            get_dotted(values, absent)


def test_rungs() -> None:
    assert Halving(1, 3).rungs(9) == [1, 3, 9]
    assert Halving(1, 3).rungs(10) == [1, 3, 9, 10]
    assert Halving(2, 2).rungs(5) == [2, 4, 5]


def test_settings_that_only_clash_together_leave_the_sweep_possible(tmp_path: Path) -> None:
    config = study_file.variant_config_from({"model": "linear"}, tmp_path)
    found: list[Problem] = []
    check_sweep(
        Sweep(space={"train.batch_size": [64, "full"], "train.accumulate": [1, 2]}),
        config,
        {},
        tmp_path,
        found,
    )
    assert found == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values": [0.1, 0.2]}, "unknown key; did you mean choices?"),
        ({"start": 0.1, "to": 0.2}, "valid: from, log, step, to"),
    ],
)
def test_messages_name_the_keys_as_they_are_written(given: dict[str, object], message: str) -> None:
    problems: list[Problem] = []
    assert space_settings(Sweep(space={"train.lr": given}), problems) == []
    said = [f"{'.'.join(map(str, each.path))}: {each.message}" for each in problems]
    assert any(message in line for line in said), said
