"""The lines of metrics.jsonl and timings.jsonl, one for each epoch that a training logs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from stresslens.core.json_file import JsonFile

SPLITS = ("train", "validation", "test")


class EpochMetrics(JsonFile):
    """A line of metrics.jsonl: losses and learning rate of an epoch, and figures by name.

    `loss` is the mean over the epoch's batches. The figures of a watched split are its `loss` and
    `accuracy`, `top5` with more than five classes, and `robust` where the best epoch is chosen by
    robust accuracy; `objective` has what the objective reports. Without figures a dictionary is
    empty, and is not written. In float16 `loss_scale` is the scale of the loss, and `skipped_updates`
    are all those since the start that an overflow has cost.
    """

    epoch: int
    loss: float | None = None
    last_loss: float | None = None
    lr: float | None = None
    train: dict[str, float] = Field(default_factory=dict)
    validation: dict[str, float] = Field(default_factory=dict)
    test: dict[str, float] = Field(default_factory=dict)
    objective: dict[str, float] = Field(default_factory=dict)
    loss_scale: float | None = None
    skipped_updates: int | None = None

    def as_json(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """Plain values, as the line holds them, with the figures of the splits in this order."""
        values = self.model_dump(mode="json", exclude_unset=True)
        keys = ("epoch", "loss", "last_loss", "lr", *splits, "objective", "loss_scale", "skipped_updates")
        return {key: values[key] for key in keys if key in values}

    @property
    def in_words(self) -> str:
        """The loss, the accuracies of the watched splits and the robust accuracy, as one line."""
        parts = [] if self.loss is None else [f"loss {self.loss:.4f}"]
        for split in SPLITS:
            accuracy = self.figure(split, "accuracy")
            parts += [] if accuracy is None else [f"{split} accuracy {100 * accuracy:.1f} %"]
        robust = self.figure("validation", "robust")
        parts += [] if robust is None else [f"robust {100 * robust:.1f} %"]
        return ", ".join(parts)

    def figure(self, *keys: str) -> float | None:
        """A number of the line (`loss`) or of its figures (`validation`, `accuracy`); None if absent."""
        value: Any = getattr(self, keys[0], None)
        for key in keys[1:]:
            value = value.get(key)
        return value if isinstance(value, float) else None


class NewEpochs:
    """The epochs of metrics.jsonl that were logged since the last look, of which only the new bytes are
    read. A line that cannot be read is passed over: what is shown of a training never stops it."""

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics
        self._seen = self._size()

    def read(self) -> list[EpochMetrics]:
        """The epochs of the whole lines that were added."""
        size = self._size()
        if size <= self._seen:
            self._seen = size  # a training that resumes has cut the file
            return []
        with self._metrics.open("rb") as file:
            file.seek(self._seen)
            lines = file.read(size - self._seen).splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        self._seen += sum(map(len, whole))
        found = []
        for line in whole:
            with suppress(ValidationError):
                found.append(EpochMetrics.model_validate_json(line))
        return found

    def _size(self) -> int:
        try:
            return self._metrics.stat().st_size
        except OSError:
            return 0


class EpochTime(JsonFile):
    """A line of timings.jsonl: the seconds in training steps from the start to this epoch's end."""

    epoch: int
    seconds: float
