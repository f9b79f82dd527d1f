"""A line for each epoch of a training on the terminal, with its loss and its accuracy on validation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stresslens.training.epoch_log import EpochMetrics
    from stresslens.training.state import TrainingState
    from stresslens.training.task import Task

TAIL = 16_384
"""Bytes at the end of metrics.jsonl that are sure to hold its last line."""


class EpochLines:
    """The line of the last logged epoch, each once and at most one in `seconds`: a training of many
    quick epochs would fill the screen."""

    def __init__(self, task: Task, seconds: float) -> None:
        self.task, self.seconds = task, seconds
        self.told, self.told_at = 0, time.perf_counter()

    def new(self, position: TrainingState, epochs: int) -> str:
        """The line if an epoch has ended since the last one; else an empty text."""
        now = time.perf_counter()
        if position.epoch <= self.told or now - self.told_at < self.seconds:
            return ""
        metrics = self._last()
        if metrics is None or metrics.epoch <= self.told:
            return ""
        self.told, self.told_at = metrics.epoch, now
        figures = [
            f"loss {metrics.loss:.4f}" if metrics.loss is not None else "",
            *(
                f"{word} {100 * value:.1f} %"
                for word, key in (("validation accuracy", "accuracy"), ("robust", "robust"))
                if (value := metrics.validation.get(key)) is not None
            ),
        ]
        place = f"{self.task.run} seed {self.task.seed}: epoch {metrics.epoch} of {epochs}"
        return f"{place}: {', '.join(filter(None, figures))}"

    def _last(self) -> EpochMetrics | None:
        from pydantic import ValidationError

        from stresslens.core.run_folder import RunFolder
        from stresslens.training.epoch_log import EpochMetrics

        try:
            with RunFolder(self.task.folder).metrics.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL))
                lines = file.read().splitlines()
            return EpochMetrics.model_validate_json(lines[-1]) if lines else None
        except (OSError, ValidationError):
            return None
