"""Losses that are read one batch late, so that the program does not wait for a GPU after every batch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stresslens.core.devices import ComputeConfig
from stresslens.core.distributed import ProcessGroup
from stresslens.training.state import TrainingState


def reads_late(compute: ComputeConfig, group: ProcessGroup) -> bool:
    """Whether losses are read late: on a GPU, by one process. Several exchange what they need at every
    batch, and float16 decides at every update whether it is skipped."""
    on_gpu = torch.device(compute.device).type == "cuda"
    return on_gpu and group.place.world == 1 and compute.precision != "float16"


@dataclass(frozen=True)
class LateLoss:
    """The loss of a batch, and the sum of the norms of its gradients, on their way to the host."""

    figures: Tensor
    arrived: torch.cuda.Event | None
    epoch: int
    step: int
    places: Tensor
    """(n,) the positions of the batch's images in the split, on the device."""

    @property
    def value(self) -> float:
        """The loss. It waits until it has arrived."""
        return float(self._read()[0])

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self._read()))

    def _read(self) -> list[float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.figures.tolist()


class LateLosses:
    """The losses that have not been read yet, in the order of their batches."""

    def __init__(self) -> None:
        self._waiting: deque[LateLoss] = deque()

    def add(self, loss: Tensor, norms: Tensor | None, state: TrainingState, places: Tensor) -> None:
        """Sends the loss of the current batch, and the norms (n,) of its gradients, to the host; nothing
        waits for them."""
        assert norms is not None
        figures = torch.stack([loss.detach().to(norms), norms.sum()])
        arrived = None
        if figures.is_cuda:
            there = torch.empty(2, dtype=figures.dtype, pin_memory=True)
            figures = there.copy_(figures, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._waiting.append(LateLoss(figures, arrived, state.epoch, state.step, places))

    def read(self, keep: int) -> Iterator[LateLoss]:
        """The losses that are due: all but the last `keep`."""
        while len(self._waiting) > keep:
            yield self._waiting.popleft()
