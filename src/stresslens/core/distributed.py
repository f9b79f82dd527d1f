"""Several processes, started by torchrun, that train one model: gradients averaged, results
gathered, decisions shared.

A batch is divided as cards are dealt: of n processes the one of rank r has its images r, r + n, r +
2n, …, so a place in the batch belongs to the same process in every batch. `core.several` is what
torch.distributed makes of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stresslens.core import torchrun
from stresslens.core.errors import ConfigError

if TYPE_CHECKING:
    pass


TRAIN = "train"
"""What the first process tells the others when a training begins."""


class ProcessGroup:
    """The processes that train together: here a single one, which has nothing to share and nobody to ask."""

    place = torchrun.Rank()

    @property
    def part(self) -> tuple[int, int]:
        """Which of how many parts of every batch is this process's."""
        return self.place.rank, self.place.world

    def call(self, begun: Any) -> None:
        """Tells the others that a training begins, and what they must know."""

    @contextmanager
    def raise_in_all(self) -> Iterator[None]:
        """An error that any process meets inside is raised in all of them, at the end."""
        yield

    def take_device(self, device: str) -> None:
        """`cuda` means this process's own GPU from here on. Raises ConfigError for a device that
        cannot be shared out."""

    def threads(self, count: int) -> int:
        """This process's share of a machine's threads."""
        return count

    def normed(self, model: nn.Module) -> nn.Module:
        """The model with batch norm over the whole batch, under the same names. Raises ConfigError
        where that cannot be."""
        return model

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the first one's values, in place."""

    def broadcast_object(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        return value

    def gather(self, rows: Tensor) -> Tensor:
        """(n, …) from the parts of the processes, in the order of what was divided."""
        return rows

    def total(self, count: int) -> int:
        return count

    def reseed(self, *values: int) -> None:
        """Of several, each draws its own global random numbers, such as dropout's, which follow
        from these values."""

    def combine(
        self, parameters: Sequence[nn.Parameter], loss: Tensor, n: int, state: dict[str, Tensor]
    ) -> tuple[float, int]:
        """Makes gradients those of the whole batch, from the parts' means over `n` images each;
        returns its loss and size.

        What lasts of an objective's `state` becomes the first process's.
        """
        return loss.item(), n

    def agreed(self, caught: int | None, due: bool) -> tuple[int | None, bool]:
        """Which signal all obey now, and whether all save: here at once, of several what was wished
        before the last `combine`."""
        return caught, due

    def facts(self, device: str) -> dict[str, Any]:
        return {"processes": 1}


ALONE = ProcessGroup()


_current: ContextVar[ProcessGroup | None] = ContextVar("group", default=None)


def group() -> ProcessGroup:
    """The processes that this one trains with. Raises ConfigError where torchrun started several
    and they were not joined."""
    current = _current.get()
    if current is None and torchrun.rank_of_process().world > 1:
        raise ConfigError(
            "torchrun starts several processes, and they train together only by the command line: "
            "torchrun … -m stresslens run STUDY.yaml"
        )
    return current or ALONE
