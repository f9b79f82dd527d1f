"""The lines of metrics.jsonl and timings.jsonl, one for each epoch that a training logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from stresslens.core.json_file import JsonFile

SPLITS = ("train", "validation", "test")


class EpochMetrics(JsonFile):
    """A line of metrics.jsonl: losses and learning rate of an epoch, and figures by name.

    `loss` is the mean over the epoch's batches. The figures of a watched split are its `loss` and
    `accuracy`, `top5` with more than five classes, and `robust` where the best epoch is chosen by
    robust accuracy; `objective` has what the objective reports. Without figures a dictionary is
    empty, and is not written.
    """

    epoch: int
    loss: float | None = None
    last_loss: float | None = None
    lr: float | None = None
    train: dict[str, float] = Field(default_factory=dict)
    validation: dict[str, float] = Field(default_factory=dict)
    test: dict[str, float] = Field(default_factory=dict)
    objective: dict[str, float] = Field(default_factory=dict)

    def as_json(self, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
        """Plain values, as the line holds them, with the figures of the splits in this order."""
        values = self.model_dump(mode="json", exclude_unset=True)
        keys = ("epoch", "loss", "last_loss", "lr", *splits, "objective")
        return {key: values[key] for key in keys if key in values}

    def figure(self, *keys: str) -> float | None:
        """A number of the line (`loss`) or of its figures (`validation`, `accuracy`); None if absent."""
        value: Any = getattr(self, keys[0], None)
        for key in keys[1:]:
            value = value.get(key)
        return value if isinstance(value, float) else None


class EpochTime(JsonFile):
    """A line of timings.jsonl: the seconds in training steps from the start to this epoch's end."""

    epoch: int
    seconds: float
