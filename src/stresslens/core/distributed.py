"""Process-group interface for distributed training under torchrun, and its single-process default.

Of n processes, the one of rank r gets the images r, r + n, r + 2n, … of every batch, so a position
in the batch always belongs to the same process. `training.process_group` implements the interface
with torch.distributed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from stresslens.core import torchrun
from stresslens.core.errors import ConfigError

TRAIN = "train"
"""The message of the first process to the others that a training begins."""


class ProcessGroup:
    """The processes that train together. This base class is a single process."""

    place = torchrun.Rank()

    @property
    def part(self) -> tuple[int, int]:
        """(rank, number of processes): which part of every batch belongs to this process."""
        return self.place.rank, self.place.world

    def call(self, begun: Any) -> None:
        """Sends `begun`, the description of a training that begins, to the other processes."""

    @contextmanager
    def raise_in_all(self) -> Iterator[None]:
        """A context at whose end an error of any process is raised in all processes."""
        yield

    def take_device(self, device: str) -> None:
        """Makes `cuda` mean this process's own GPU. Raises ConfigError if there are too few
        devices."""

    def threads(self, count: int) -> int:
        """This process's share of `count` threads of a machine."""
        return count

    def normed(self, model: nn.Module) -> nn.Module:
        """The model with batch norm over the whole batch (SyncBatchNorm), with the same tensor
        names.

        Raises ConfigError if the device does not support it.
        """
        return model

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copies the first process's tensors into those of all processes, in place."""

    def broadcast_object(self, value: Any) -> Any:
        """Returns the first process's value in all processes."""
        return value

    def gather(self, rows: Tensor) -> Tensor:
        """(n, …) from the parts of all processes, in the order before they were divided."""
        return rows

    def total(self, count: int) -> int:
        return count

    def reseed(self, *values: int) -> None:
        """With several processes, seeds each one's global random numbers, such as dropout's.

        The seeds follow from `values` and the rank.
        """

    def share(self, images: int) -> int:
        """The number of images of a batch that belong to this process."""
        rank, world = self.part
        return max(0, -(-(images - rank) // world))

    def backward(self, pass_back: Callable[[], None], parameters: Sequence[nn.Parameter], n: int) -> None:
        """Calls the backward pass of a loss that is the mean over this process's `n` images. Several
        processes begin meanwhile to sum the gradients that are complete, which `combine` ends."""
        pass_back()

    def combine(
        self, parameters: Sequence[nn.Parameter], loss: Tensor, n: int, state: dict[str, Tensor]
    ) -> tuple[float, int]:
        """Averages gradients and loss over the whole batch; returns its loss and size.

        Each process's gradients and loss are means over its `n` images. The lasting part of an
        objective's `state` becomes that of the first process.
        """
        return loss.item(), n

    def agreed(self, caught: int | None, due: bool) -> tuple[int | None, bool]:
        """The signal that all processes obey now, and whether all save a checkpoint now.

        A single process decides at once. Several decide by what each reported before the last
        `combine`.
        """
        return caught, due

    def facts(self, device: str) -> dict[str, Any]:
        return {"processes": 1}


ALONE = ProcessGroup()


_current: ContextVar[ProcessGroup | None] = ContextVar("group", default=None)


def group() -> ProcessGroup:
    """The process group of this process.

    Raises ConfigError if torchrun started several processes that have not joined a group.
    """
    current = _current.get()
    if current is None and torchrun.rank_of_process().world > 1:
        raise ConfigError(
            "torchrun starts several processes, and they train together only by the command line: "
            "torchrun … -m stresslens run STUDY.yaml"
        )
    return current or ALONE
