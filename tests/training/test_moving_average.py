"""Averages of weights: their definitions, statistics of batch norm, resuming, and averages that are too
slow for the training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import update_bn
from trainings import same_bits_after_a_stop, training_of

from stresslens.config import study_file
from stresslens.config.schema import Train
from stresslens.core.errors import ConfigError
from stresslens.study import stages
from stresslens.training import moving_average
from stresslens.training.loop import fit
from stresslens.training.task import Task

Make = Callable[..., Task]


def test_a_moving_average_that_is_still_the_first_weights_is_told(task_of: Make, tmp_path: Path) -> None:
    options = {"epochs": 5, "batch_size": 40, "watch": [], "select": "last"}
    short = stages.carry_out(task_of("linear", folder=tmp_path / "short", ema=0.999, **options))
    (note,) = [note for note in short.findings if note.kind == moving_average.KIND]
    assert note.message.startswith("98.6% of the kept weights are those after the first update")  # .999^14
    long = stages.carry_out(task_of("linear", folder=tmp_path / "long", ema=0.7, **options))
    assert not long.findings


@pytest.mark.parametrize(
    ("decay", "updates", "told"), [(0.9, 100, False), (0.9, 10, True), (0.9999999, 10**6, True)]
)
def test_the_share_of_the_first_weights_is_that_of_the_average(
    decay: float, updates: int, told: bool
) -> None:
    average = 1.0  # of the weights 1 after the first update, and 0 after all later ones
    for _ in range(updates - 1):
        average = decay * average + (1 - decay) * 0.0
    notes = moving_average.average_findings(Train(ema=decay), updates=updates, epoch=1)
    assert bool(notes) is told is (average > moving_average.NOTABLE)
    assert all(f"{average:.1%} of" in note.message for note in notes)


@pytest.mark.parametrize(("share", "epoch", "told"), [(0.75, 4, True), (0.5, 4, False), (0.75, 3, False)])
def test_an_average_of_a_single_epoch_is_told(share: float, epoch: int, told: bool) -> None:
    """Of four epochs; before the third quarter there is no average, and the weights are kept as they are."""
    notes = moving_average.average_findings(Train(epochs=4, swa=share), updates=100, epoch=epoch)
    assert [note.message.partition(" (")[0] for note in notes] == (
        ["the average over epochs has the weights of epoch 4 alone"] if told else []
    )


def test_average_follows_its_definition_and_copies_batch_norm(task_of: Make) -> None:
    task = task_of(
        {"simple_cnn": {"batch_norm": True, "channels": 4, "hidden": 8}},
        epochs=2,
        batch_size=40,
        ema=0.5,
        watch=[],
        select="last",
    )
    training = training_of(task)
    seen: list[torch.Tensor] = []
    update = training.optimizer_step

    def spy() -> None:
        update()
        seen.append(training.parameters[0].detach().clone())

    training.optimizer_step = spy  # type: ignore[method-assign]
    fit(training)
    expected = seen[0]
    for value in seen[1:]:
        expected = 0.5 * expected + 0.5 * value
    assert training.average is not None
    torch.testing.assert_close(next(training.average.module.parameters()).detach(), expected)
    for kept, live in zip(training.average.module.buffers(), training.model.buffers()):
        assert kept.equal(live)


CNN = {"simple_cnn": {"batch_norm": True, "channels": 4, "hidden": 8}}
AVERAGED = {"epochs": 6, "batch_size": 40, "swa": 0.5, "select": "last", "lr": 0.01}


def test_the_average_over_epochs_is_that_of_their_last_weights(task_of: Make) -> None:
    """And its batch norm has the statistics that torch's update_bn gives."""
    training = training_of(task_of(CNN, **AVERAGED))
    ends: list[list[torch.Tensor]] = []
    end = training.end_epoch

    def spy() -> None:
        ends.append([p.detach().clone() for p in training.model.parameters()])
        end()
        assert (training.evaluated is training.model) == (len(ends) <= 3)

    training.end_epoch = spy  # type: ignore[method-assign]
    fit(training)
    for found, *values in zip(training.evaluated.parameters(), *ends[3:]):
        torch.testing.assert_close(found.detach(), torch.stack(values).mean(0))
    again = copy.deepcopy(training.evaluated)
    update_bn((batch.x for batch in training.data.train.batches(40)), again)
    for found, expected in zip(training.evaluated.buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("share", "epochs", "first"), [(0.75, 8, 7), (0.29, 100, 30), (0.1, 3, 1), (0.07, 100, 8)]
)
def test_the_average_begins_behind_its_share_of_the_epochs(share: float, epochs: int, first: int) -> None:
    taken = [epoch for epoch in range(1, epochs + 1) if moving_average.takes_epoch(share, epoch, epochs)]
    assert taken == list(range(first, epochs + 1))


def test_a_killed_average_over_epochs_goes_on_with_the_same_bits(task_of: Make, tmp_path: Path) -> None:
    whole, killed = (task_of(CNN, folder=tmp_path / name / "seed-0", **AVERAGED) for name in "ab")
    same_bits_after_a_stop(whole, killed, 5)


def test_two_averages_are_refused() -> None:
    with pytest.raises(ConfigError, match="not by both"):
        study_file.variant_config_from({"train": {"swa": 0.5, "ema": 0.9}}, Path.cwd())
