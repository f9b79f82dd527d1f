"""One of several processes that torchrun started, by torch.distributed: gloo for tensors on the
CPU, nccl for those on GPUs."""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from stresslens.core import torchrun
from stresslens.core.distributed import TRAIN, ProcessGroup
from stresslens.core.draws import mix
from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.types import lasting

if TYPE_CHECKING:
    pass
from stresslens.core.distributed import _current

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: the first may be busy with attacks in between. torchrun
notices one that is gone."""
POLL_SECONDS = 0.02


class TorchProcessGroup(ProcessGroup):
    """One of several processes. Whatever two of them must do together, they do in the same order."""

    def __init__(self, place: torchrun.Rank) -> None:
        self.place = place
        self._store = next(rendezvous("env://"))[0]
        self._orders = 0
        self._wishes = self._granted = (False, False, False)

    def call(self, begun: Any) -> None:
        self._tell(TRAIN)
        self.meet(begun)

    def dismiss(self, code: int) -> None:
        """Lets the others go, with the code that this process exits with."""
        with suppress(RuntimeError):  # they may be gone, and the store with them
            self._tell(str(code))

    def _tell(self, order: str) -> None:
        self._store.set(f"order {self._orders}", order)
        self._orders += 1

    def order(self, hurried: Callable[[], bool] = lambda: False, seconds: float = 0) -> str | None:
        """What the first process tells next, TRAIN or an exit code; None where it does not within
        so many seconds of a hurry.

        A store that is gone means that the first process is.
        """
        until = math.inf
        try:
            while not self._store.check([f"order {self._orders}"]):
                if hurried():
                    until = min(until, time.monotonic() + seconds)
                if time.monotonic() > until:
                    return None
                time.sleep(POLL_SECONDS)
            order: str = self._store.get(f"order {self._orders}").decode()
        except RuntimeError:
            return "0"
        self._orders += 1
        return order

    def meet(self, begun: Any = None) -> Any:
        """What the first process tells of a training that begins."""
        self._wishes = self._granted = (False, False, False)
        if not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=PrefixStore("group", self._store),
                rank=self.place.rank,
                world_size=self.place.world,
                timeout=PATIENCE,
            )
        return self.broadcast_object(begun)

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def raise_in_all(self) -> Iterator[None]:
        met: Exception | None = None
        try:
            yield
        except Exception as error:
            met = error
        told = self._each(None if met is None else str(met) or type(met).__name__)
        if met is not None:
            raise met
        for rank, message in enumerate(told):
            if message is not None:
                raise StresslensError(f"process {rank}: {message}")

    def take_device(self, device: str) -> None:
        kind, world = torch.device(device).type, self.place.local_world
        if not re.fullmatch("cpu|cuda", device):
            why = "is one GPU, and each process needs its own" if kind == "cuda" else "serves one process"
            raise ConfigError(
                f"train.device: {device} {why}; say {'cuda' if kind == 'cuda' else 'cpu'}, or leave torchrun out"
            )
        if kind == "cuda":
            if torch.cuda.device_count() < world:
                raise ConfigError(
                    f"{world} processes on a machine with {torch.cuda.device_count()} GPUs, and each needs its own; lower "
                    "--nproc-per-node"
                )
            torch.cuda.set_device(self.place.local_rank)

    def threads(self, count: int) -> int:
        return max(1, count // self.place.local_world)

    def normed(self, model: nn.Module) -> nn.Module:
        if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            return model
        if next(model.parameters()).device.type != "cuda":
            raise ConfigError(
                f"batch norm takes its mean and deviation over the whole batch, which {self.place.world} processes can share on "
                "GPUs only (torch's SyncBatchNorm does not run on a CPU); train this model in one process, without torchrun, or "
                "without batch norm"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return, no-untyped-call]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        with _connected(), torch.no_grad():
            for tensor in tensors:
                dense = tensor.contiguous()
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    def broadcast_object(self, value: Any) -> Any:
        box = [value]
        with _connected():
            dist.broadcast_object_list(box, 0)
        return box[0]

    def _each(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        found: list[Any] = [None] * self.place.world
        with _connected():
            dist.all_gather_object(found, value)
        return found

    def gather(self, rows: Tensor) -> Tensor:
        """On the CPU."""
        kinds = self._each((len(rows), rows.shape[1:], rows.dtype))
        most, shape, dtype = max(kinds, key=lambda kind: int(kind[0]))
        padded = torch.zeros(most, *shape, dtype=dtype)
        if len(rows):
            padded[: len(rows)] = rows.detach().cpu()
        parts = [torch.empty_like(padded) for _ in kinds]
        with _connected():
            dist.all_gather(parts, padded)
        whole = torch.empty(sum(kind[0] for kind in kinds), *shape, dtype=dtype)
        for rank, (part, kind) in enumerate(zip(parts, kinds)):
            whole[rank :: self.place.world] = part[: kind[0]]
        return whole

    def total(self, count: int) -> int:
        counted = torch.tensor(count)
        with _connected():
            dist.all_reduce(counted)
        return int(counted)

    def reseed(self, *values: int) -> None:
        torch.manual_seed(mix(*values, self.place.rank))

    def combine(
        self, parameters: Sequence[nn.Parameter], loss: Tensor, n: int, state: dict[str, Tensor]
    ) -> tuple[float, int]:
        """One sum over the processes of what each has, times its `n`; what accumulated before is
        alike in all, and stays."""
        first = parameters[0]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        means = torch.cat([*(g.reshape(-1) for g in gradients), loss.detach().reshape(1).to(first)])
        present = [p.grad is not None for p in parameters]
        shares_state = self.place.rank == 0 and bool(lasting(state))
        said = first.new_tensor([n, *self._wishes, shares_state, *present])
        bucket = torch.cat([means.mul_(n), said])
        with _connected():
            dist.all_reduce(bucket)
        means, said = torch.split(bucket, [len(means), len(said)])
        heard = said.tolist()
        size, sharing, present = round(heard[0]), heard[4] > 0, [count > 0 for count in heard[5:]]
        self._granted = (heard[1] > 0, heard[2] > 0, heard[3] > 0)
        *pieces, value = torch.split(means.div_(size), [*(p.numel() for p in parameters), 1])
        for parameter, gradient, piece, some in zip(parameters, gradients, pieces, present):
            parameter.grad = gradient.copy_(piece.view_as(gradient)) if some else None
        if sharing:
            own = {name: value.cpu() for name, value in lasting(state).items()}
            state.update({name: value.to(first.device) for name, value in self.broadcast_object(own).items()})
        return value.item(), size

    def agreed(self, caught: int | None, due: bool) -> tuple[int | None, bool]:
        interrupt, terminate, save = self._granted
        self._wishes = (caught == signal.SIGINT, caught == signal.SIGTERM, due and not save)
        return signal.SIGTERM if terminate else signal.SIGINT if interrupt else None, save

    def facts(self, device: str) -> dict[str, Any]:
        return {
            "processes": self.place.world,
            "backend": "nccl" if torch.device(device).type == "cuda" else "gloo",
        }


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise StresslensError(
            f"another process of this training has ended ({first_line(error)[:160]}); "
            "the same command goes on from the last checkpoint"
        ) from error


@contextmanager
def joined() -> Iterator[TorchProcessGroup]:
    """For the duration this process is one of those that torchrun started."""
    pass

    several = TorchProcessGroup(torchrun.rank_of_process())
    token = _current.set(several)
    try:
        yield several
    finally:
        _current.reset(token)
        several.leave()
