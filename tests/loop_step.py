"""One batch of a training, for tests that look between two of them."""

from __future__ import annotations

from stresslens.core.data import Batch
from stresslens.training.loop import Training


def loop_step(training: Training, batch: Batch) -> None:
    """The loop's steps for one batch (`training.loop.fit`), without progress and checkpoints."""
    loss = training.batch_loss(batch)
    training.backward(loss)
    value, images = training.reduce(loss, batch)
    training.check(value, batch)
    training.optimizer_step()
    training.count(value, images)
