"""Sums of gradients over processes that begin while the backward pass is still computing the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stresslens.core.errors import ProcessLost, first_line

FIRST_BYTES, BYTES = 2**20, 25 * 2**20
"""Bytes of gradients of the first bucket, which is summed first, and of the others (those of torch's
DistributedDataParallel)."""


class GradientBuckets:
    """The gradients of parameters in buckets, the last parameters first, as the backward pass reaches
    them. Each bucket is summed over the processes as soon as it and all before it are complete, so that
    all processes sum the same buckets in the same order.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.buckets = _divided(parameters)
        self._of = {p: k for k, bucket in enumerate(self.buckets) for p in bucket}
        self._sums: list[tuple[Tensor, dist.Work]] = []
        self._missing: list[int] = []
        self._images = 0
        self._hooks = [p.register_post_accumulate_grad_hook(self._arrived) for p in parameters]

    def remove(self) -> None:
        """Removes the hooks from the parameters."""
        for hook in self._hooks:
            hook.remove()

    @contextmanager
    def summing(self, images: int) -> Iterator[None]:
        """A context for one backward pass, of a loss that is the mean over so many images: gradients that
        arrive in it are not changed any more."""
        self._missing, self._images = [len(bucket) for bucket in self.buckets], images
        try:
            yield
        finally:
            self._missing = []

    def _arrived(self, parameter: Tensor) -> None:
        if not self._missing:
            return  # of a pass that is not the training's own
        self._missing[self._of[parameter]] -= 1  # type: ignore[index]
        while len(self._sums) < len(self.buckets) and self._missing[len(self._sums)] == 0:
            self._sum_next()

    def _sum_next(self) -> None:
        bucket = self.buckets[len(self._sums)]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in bucket]
        flat = torch.cat([gradient.detach().reshape(-1) for gradient in gradients]).mul_(self._images)
        with connected():
            work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sums.append((flat, work))

    def begin_all(self, images: int) -> None:
        """Begins the sums that have not begun yet: of gradients that no backward pass wrote."""
        self._images = images
        while len(self._sums) < len(self.buckets):
            self._sum_next()

    def means(self, count: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each parameter with the mean of its gradient over the `count` images of all processes."""
        sums, self._sums = self._sums, []
        for bucket, (flat, work) in zip(self.buckets, sums, strict=True):
            work.wait()
            parts = flat.div_(count).split([p.numel() for p in bucket])
            yield from ((p, part.view_as(p)) for p, part in zip(bucket, parts))


@contextmanager
def connected() -> Iterator[None]:
    """Turns a lost connection into ProcessLost."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost(
            f"another process of this training has ended ({first_line(error)[:160]}); "
            "the same command resumes it from the last checkpoint"
        ) from error


def _divided(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The parameters from the last to the first, in buckets of one dtype and device."""
    buckets: list[list[nn.Parameter]] = []
    room = 0
    for parameter in reversed(parameters):
        size = parameter.numel() * parameter.element_size()
        alike = buckets and _kind(buckets[-1][-1]) == _kind(parameter)
        if not alike or size > room:
            buckets.append([])
            room = FIRST_BYTES if len(buckets) == 1 else BYTES
        buckets[-1].append(parameter)
        room -= size
    return buckets


def _kind(parameter: nn.Parameter) -> tuple[torch.dtype, torch.device]:
    return parameter.dtype, parameter.device
