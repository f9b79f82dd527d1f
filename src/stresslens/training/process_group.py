"""The process group of distributed training, by torch.distributed: gloo for tensors on the CPU,
nccl for tensors on GPUs."""

from __future__ import annotations

import math
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from stresslens.core import torchrun
from stresslens.core.distributed import TRAIN, ProcessGroup, _current
from stresslens.core.draws import mix
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.types import lasting
from stresslens.training.gradient_buckets import GradientBuckets, connected

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: the first may run attacks between two trainings.
torchrun ends all when one process is lost."""
POLL_SECONDS = 0.02


class TorchProcessGroup(ProcessGroup):
    """This process as one of several. All call the methods that communicate in the same order."""

    def __init__(self, place: torchrun.Rank) -> None:
        self.place = place
        self._store = next(rendezvous("env://"))[0]
        self._orders = 0
        """Orders that the first process has sent, or that this one has received."""
        self._buckets: GradientBuckets | None = None
        self._requests = self._decisions = (False, False, False)
        """Whether to obey SIGINT, to obey SIGTERM and to save: what this process asks for, and what all
        decided in the last `combine`."""

    def call(self, begun: Any) -> None:
        self._send(TRAIN)
        self.meet(begun)

    def dismiss(self, code: int) -> None:
        """Ends the other processes, with the exit code of this one."""
        with suppress(RuntimeError):  # they may have ended, and the store with them
            self._send(str(code))

    def _send(self, order: str) -> None:
        self._store.set(f"order {self._orders}", order)
        self._orders += 1

    def order(self, hurried: Callable[[], bool] = lambda: False, seconds: float = 0) -> str | None:
        """Waits for the first process's next order: TRAIN or an exit code. None where it sends none
        within `seconds` after `hurried` returned True.

        A store that no longer answers means that the first process has ended.
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

    def meet(self, training: Any = None) -> Any:
        """Connects the processes for a training and returns the description of it that the first
        process gives."""
        self._requests = self._decisions = (False, False, False)
        if not dist.is_initialized():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=PrefixStore("group", self._store),
                rank=self.place.rank,
                world_size=self.place.world,
                timeout=PATIENCE,
            )
        return self.broadcast_object(training)

    def leave(self) -> None:
        if self._buckets is not None:
            self._buckets.remove()
        if dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def raise_in_all(self) -> Iterator[None]:
        own_error: Exception | None = None
        try:
            yield
        except Exception as error:
            own_error = error
        own_message = None if own_error is None else str(own_error) or type(own_error).__name__
        messages = self._of_all(own_message)
        if own_error is not None:
            raise own_error
        for rank, message in enumerate(messages):
            if message is not None:
                raise StresslensError(f"process {rank}: {message}")

    def take_device(self, device: str) -> None:
        kind, world = torch.device(device).type, self.place.local_world
        if not re.fullmatch("cpu|cuda", device):
            why = "is one GPU, and each process needs its own" if kind == "cuda" else "serves one process"
            raise ConfigError(
                f"train.device: {device} {why}; say {'cuda' if kind == 'cuda' else 'cpu'}, "
                "or leave torchrun out"
            )
        if kind == "cuda":
            if torch.cuda.device_count() < world:
                raise ConfigError(
                    f"{world} processes on a machine with {torch.cuda.device_count()} GPUs, and each needs "
                    "its own; lower --nproc-per-node"
                )
            torch.cuda.set_device(self.place.local_rank)

    def threads(self, count: int) -> int:
        return max(1, count // self.place.local_world)

    def normed(self, model: nn.Module) -> nn.Module:
        if not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
            return model
        if next(model.parameters()).device.type != "cuda":
            raise ConfigError(
                "batch norm takes its mean and deviation over the whole batch, which "
                f"{self.place.world} processes can share on GPUs only (torch's SyncBatchNorm does not run on "
                "a CPU); train this model in one process, without torchrun, or without batch norm"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return]

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        with connected(), torch.no_grad():
            for tensor in tensors:
                dense = tensor.contiguous()
                dist.broadcast(dense, 0)
                tensor.copy_(dense)

    def broadcast_object(self, value: Any) -> Any:
        values = [value]
        with connected():
            dist.broadcast_object_list(values, 0)
        return values[0]

    def _of_all(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        values: list[Any] = [None] * self.place.world
        with connected():
            dist.all_gather_object(values, value)
        return values

    def gather(self, rows: Tensor) -> Tensor:
        """The rows are returned on the CPU."""
        layouts = self._of_all((len(rows), rows.shape[1:], rows.dtype))
        longest, shape, dtype = max(layouts, key=lambda layout: int(layout[0]))
        lengths = [int(length) for length, *_ in layouts]
        padded = torch.zeros(longest, *shape, dtype=dtype)
        if len(rows):
            padded[: len(rows)] = rows.detach().cpu()
        parts = [torch.empty_like(padded) for _ in lengths]
        with connected():
            dist.all_gather(parts, padded)
        whole = torch.empty(sum(lengths), *shape, dtype=dtype)
        for rank, (part, length) in enumerate(zip(parts, lengths)):
            whole[rank :: self.place.world] = part[:length]
        return whole

    def total(self, count: int) -> int:
        total = torch.tensor(count)
        with connected():
            dist.all_reduce(total)
        return int(total)

    def reseed(self, *values: int) -> None:
        torch.manual_seed(mix(*values, self.place.rank))

    def backward(self, pass_back: Callable[[], None], parameters: Sequence[nn.Parameter], n: int) -> None:
        with self._buckets_of(parameters).summing(n):
            pass_back()

    def _buckets_of(self, parameters: Sequence[nn.Parameter]) -> GradientBuckets:
        """The buckets of the current training's parameters."""
        if self._buckets is None or self._buckets.parameters is not parameters:
            if self._buckets is not None:
                self._buckets.remove()
            self._buckets = GradientBuckets(parameters)
        return self._buckets

    def combine(
        self, parameters: Sequence[nn.Parameter], loss: Tensor, n: int, state: dict[str, Tensor]
    ) -> tuple[float, int]:
        """The sum over the processes of gradients and loss times `n`, divided by the size of the whole
        batch. Gradients that were accumulated before are equal in all processes, so the mean leaves
        them as they are."""
        first, buckets = parameters[0], self._buckets_of(parameters)
        has_state = self.place.rank == 0 and bool(lasting(state))
        asked = [n, *self._requests, has_state, *(p.grad is not None for p in parameters)]
        figures = torch.cat([loss.detach().reshape(1).to(first) * n, first.new_tensor(asked)])
        with connected():
            buckets.begin_all(n)
            dist.all_reduce(figures)
            value, total, *flags = figures.tolist()
            size = round(total)
            interrupt, terminate, save, shares_state, *has_gradient = [flag > 0 for flag in flags]
            self._decisions = (interrupt, terminate, save)
            present = dict(zip(parameters, has_gradient))
            for parameter, mean in buckets.means(size):
                if not present[parameter]:
                    parameter.grad = None
                elif parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter).copy_(mean)
                else:
                    parameter.grad.copy_(mean)
        if shares_state:
            own = {name: value.cpu() for name, value in lasting(state).items()}
            state.update({name: value.to(first.device) for name, value in self.broadcast_object(own).items()})
        return value / size, size

    def agreed(self, caught: int | None, due: bool) -> tuple[int | None, bool]:
        interrupt, terminate, save = self._decisions
        self._requests = (caught == signal.SIGINT, caught == signal.SIGTERM, due and not save)
        return signal.SIGTERM if terminate else signal.SIGINT if interrupt else None, save

    def facts(self, device: str) -> dict[str, Any]:
        return {
            "processes": self.place.world,
            "backend": "nccl" if torch.device(device).type == "cuda" else "gloo",
        }


@contextmanager
def joined() -> Iterator[TorchProcessGroup]:
    """Makes this process a member of the group that torchrun started, until the block ends."""
    group = TorchProcessGroup(torchrun.rank_of_process())
    token = _current.set(group)
    try:
        yield group
    finally:
        _current.reset(token)
        group.leave()
