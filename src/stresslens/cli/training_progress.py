"""How a training is going, on the terminal: a line for each epoch with its loss and its accuracy on
validation, and a bar with the time left."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from stresslens.cli.terminal import overwrite
from stresslens.core.text import duration

if TYPE_CHECKING:
    from stresslens.training.loop import Show
    from stresslens.training.state import TrainingState
    from stresslens.training.task import Task


def silent(position: TrainingState, epochs: int, done: float) -> None:
    pass


def progress(task: Task, verbose: bool) -> Show:
    """A line for each epoch, and on a terminal one below it that is overwritten; elsewhere a line every
    ten seconds (every second with -v)."""
    began = time.perf_counter()
    first: list[float] = []
    last = [began]
    terminal = sys.stderr.isatty()
    every = 1 if terminal or verbose else 10
    epoch_lines = EpochLines(task, every)

    def show(position: TrainingState, epochs: int, done: float) -> None:
        now = time.perf_counter()
        first.append(done) if not first else None
        if line := epoch_lines.new(epochs):
            overwrite(line, end="\n") if terminal else print(line, file=sys.stderr)
            last[0] = now
        if not terminal and now - last[0] < every:
            return
        last[0] = now
        rate = (done - first[0]) / (now - began)
        left = f"{duration((1 - done) / rate)} left" if rate > 0 else "…"
        line = (
            f"{task.run} seed {task.seed}: epoch {min(position.epoch + 1, epochs)} of {epochs}, "
            f"loss {position.last_loss:.4f}, {left}"
        )
        if terminal:
            filled = round(24 * done)
            overwrite(f"[{'█' * filled}{'·' * (24 - filled)}] {line}")
        else:
            print(line, file=sys.stderr)

    return show


class EpochLines:
    """The line of the last logged epoch, each once and at most one in `seconds`: a training of many
    quick epochs would fill the screen."""

    def __init__(self, task: Task, seconds: float) -> None:
        from stresslens.core.run_folder import RunFolder
        from stresslens.training.epoch_log import NewEpochs

        self.title, self.seconds, self.told_at = f"{task.run} seed {task.seed}", seconds, time.perf_counter()
        self.logged = NewEpochs(RunFolder(task.folder).metrics)

    def new(self, epochs: int) -> str:
        """The line if an epoch has ended since the last one; else an empty text."""
        now = time.perf_counter()
        if now - self.told_at < self.seconds or not (logged := self.logged.read()):
            return ""
        self.told_at = now
        return f"{self.title}: epoch {logged[-1].epoch} of {epochs}: {logged[-1].in_words}"
