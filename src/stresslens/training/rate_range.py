"""The learning-rate range test: losses while the learning rate rises, and the rate that they suggest."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from stresslens.core import devices
from stresslens.core.errors import ConfigError, TrainingDiverged
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import counted
from stresslens.training.autotune import autotune, compute_config
from stresslens.training.loop import Training
from stresslens.training.setup import build_model, load_initial_weights
from stresslens.training.task import Task, load_data
from stresslens.training.teacher import open_teacher

LOWEST, HIGHEST, UPDATES = 1e-6, 10.0, 100
"""The rates between which the test goes, by equal factors, and the number of its updates."""
SMOOTHED = 0.9
"""Weight of the losses before in the smoothed loss, whose start is corrected as in Adam."""
TOO_HIGH = 4.0
"""The test ends where the smoothed loss is so many times its lowest value."""
BELOW = 10.0
"""The suggestion is so many times smaller than the rate with the lowest smoothed loss."""
SEEDS = 3
"""Seeds of a test that names none."""


@dataclass(frozen=True)
class RateRange:
    """A range test of one seed: the rates, and the smoothed loss before the update of each."""

    seed: int
    rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate with the lowest smoothed loss."""
        return self.rates[min(range(len(self.losses)), key=self.losses.__getitem__)] / BELOW


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponentially weighted means of the losses up to each."""
    mean, found = 0.0, []
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHED * mean + (1 - SMOOTHED) * loss
        found.append(mean / (1 - SMOOTHED**count))
    return found


def central_rate(ranges: Sequence[RateRange]) -> float:
    """The geometric mean of the suggestions of several seeds."""
    return math.exp(sum(math.log(each.suggestion) for each in ranges) / len(ranges))


def spread_in_words(ranges: Sequence[RateRange]) -> str:
    """`0.0055 to 0.01 over 3 seeds`, or `1 seed`."""
    found, over = [each.suggestion for each in ranges], counted(len(ranges), "seed")
    return f"{min(found):.2g} to {max(found):.2g} over {over}" if len(found) > 1 else over


def rate_ranges(tasks: Sequence[Task]) -> Iterator[RateRange]:
    """The range test of each task, with compute settings that are chosen first, for all of them alike."""
    for task in autotune(list(tasks), most_threads=os.cpu_count() or 1):
        yield rate_range(task)


def rate_range(task: Task) -> RateRange:
    """The range test of a task (Smith 2017, section 3.3): it trains from the task's first weights while
    the learning rate rises, until the loss grows or is not finite. Nothing is written.

    Layer-wise rates keep their ratios, and `train.schedule` has no effect. Raises ConfigError for a
    task without training steps.
    """
    train, compute = task.config.train, compute_config(task)
    if task.config.estimator is not None or train.probed or not train.epochs:
        raise ConfigError("a learning rate is found for a net that is trained; this run has no updates")
    data = load_data(task)
    model = build_model(task, data)
    load_initial_weights(task, data, model)
    with tempfile.TemporaryDirectory() as folder, devices.on_threads(compute.threads):
        training = Training(
            compute.place(model),
            data.to(compute.device),
            replace(train, schedule="constant", watch=[], select="last", stop=None),
            compute=compute,
            seed=task.seed,
            folder=RunFolder(Path(folder)),
            base=task.base,
            show=lambda state, epochs, done: None,
            teacher=open_teacher(task, data, compute),
        )
        training.late, training.gradients.late = None, False  # every loss is needed at once
        with torch.random.fork_rng(devices=[]):
            rates, losses = _rising(training, train.lr)
    return RateRange(task.seed, rates, losses)


def _rising(training: Training, lr: float) -> tuple[list[float], list[float]]:
    """The rates, and the smoothed losses, of updates at rising rates. `lr` is that of the groups now."""
    groups = training.optimizer.param_groups
    shares = [float(group["lr"]) / lr for group in groups]
    factor = (HIGHEST / LOWEST) ** (1 / (UPDATES - 1))
    rates: list[float] = []
    losses: list[float] = []
    while len(rates) < UPDATES:
        training.fine_tuning.begin(training.state.epoch)
        for batch in islice(training.batches(), (UPDATES - len(rates)) * training.train.accumulate):
            rate = LOWEST * factor ** len(rates)
            for group, share in zip(groups, shares):
                group["lr"] = rate * share
            loss = training.batch_loss(batch)
            training.backward(loss)
            value, images = training.reduce(loss, batch)
            try:
                training.check(value, batch)
            except TrainingDiverged:
                return rates, smoothed(losses)
            before = training.state.updates
            training.optimizer_step()
            training.count(value, images)
            if training.state.updates > before:
                rates.append(rate)
                losses.append(float(value))
                course = smoothed(losses)
                if course[-1] > TOO_HIGH * min(course):
                    return rates, course
        training.state.epoch += 1
        training.state.step = 0
    return rates, smoothed(losses)
