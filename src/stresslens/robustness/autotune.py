"""Autotunes attacks: measures which precision, memory format, threads and batch size compute
gradients fastest on a model."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config.registry import Bound, answer_beside
from stresslens.core.attack_base import BatchedModel, dtype_of, gradient
from stresslens.core.copies import fast_copy, faster, use_as_it_is
from stresslens.core.devices import on_threads
from stresslens.core.errors import ConfigError
from stresslens.core.pass_memory import images_at_once

BATCHES = (64, 128, 256, 512)
PROBE_SECONDS = 0.03
"""Each candidate is timed for this long."""
GAIN = 1.1
"""Another candidate is chosen only if it is this many times as fast."""
RESOLVED = 1 / 128
"""Steps of at least this length, in pixel units, can be taken in bfloat16, whose resolution near
white is 1/256."""


@dataclass(frozen=True)
class AttackCompute:
    """How gradients of attacks are computed. The exact bits of a result depend on it.

    `batch` is the batch size, `passes` the number of forward passes that a random model is averaged
    over, `seconds` the measured time of a gradient for each image.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    threads: int = 1
    batch: int = BATCHES[1]
    passes: int = 1
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def model(self, model: nn.Module, x: Tensor, precision: str | None = None) -> BatchedModel:
        """The model as an attack sees it, in the given precision or by default in `self.precision`:
        a copy that is checked on images x (`fast_copy`), or the model itself, with a Notice."""
        try:
            copy = fast_copy(model, x.to(dtype_of(model) or x.dtype), memory_format=self.layout)
            return self.batched(copy, precision or self.precision)
        except ConfigError as error:
            use_as_it_is(model, error)
        except Exception:  # the model takes no gradient; attacks without one may still work
            pass
        return self.uncopied(model)

    def copied(self, model: nn.Module) -> BatchedModel:
        """A copy that is not checked, to time it."""
        return self.batched(faster(model, self.layout), self.precision)

    def uncopied(self, model: nn.Module) -> BatchedModel:
        return BatchedModel(model, batch=self.batch, passes=self.passes)

    def batched(self, copy: nn.Module, precision: str) -> BatchedModel:
        """A copy that has the memory format, in this precision."""
        if precision == "bfloat16":
            copy = copy.to(torch.bfloat16)
        return BatchedModel(copy, batch=self.batch, passes=self.passes, memory_format=self.layout)

    def active(self) -> AbstractContextManager[None]:
        """A context in which torch uses `threads` threads."""
        return on_threads(self.threads)


_measured: dict[tuple[Any, ...], AttackCompute] = {}


def autotune_attack(model: nn.Module, x: Tensor, *, passes: int) -> AttackCompute:
    """The fastest way to compute gradients on images like x (n, C, H, W); the model must be frozen
    (`attacked`).

    It is measured once for each architecture and image shape, in about half a second.
    """
    threads = torch.get_num_threads()
    key = (repr(model), tuple(x.shape), str(x.device), threads, passes)
    if key not in _measured:
        _measured[key] = _fastest(model, x, passes, threads)
    return _measured[key]


def _fastest(model: nn.Module, x: Tensor, passes: int, threads: int) -> AttackCompute:
    formats = (
        ["contiguous", "channels_last"]
        if any(isinstance(m, nn.Conv2d) for m in model.modules())
        else ["contiguous"]
    )
    most = images_at_once(model, x.shape[1:], max(BATCHES), gradient=True)
    best = AttackCompute("float32", "contiguous", threads, min(128, most, max(1, len(x))), passes, 0.0)
    try:
        best = _timed(best, best.copied(model), x)
    except Exception:  # a user's module may not bear copying; then there is nothing to choose
        return _timed(best, best.uncopied(model), x)
    counts = [threads] if threads == 1 else [threads, 1]
    for precision in ("float32", "bfloat16"):
        for memory_format in formats:
            for count in counts:
                candidate = AttackCompute(precision, memory_format, count, best.batch, passes, 0.0)  # type: ignore[arg-type]
                # a model that cannot compute in this way is attacked in float32
                with suppress(RuntimeError, TypeError, NotImplementedError, ConfigError):
                    timed = _timed(candidate, candidate.copied(model), x)
                    best = timed if timed.seconds * GAIN < best.seconds else best
    for batch in BATCHES:
        if batch <= min(len(x), most) and batch != best.batch:
            candidate = AttackCompute(best.precision, best.memory_format, best.threads, batch, passes, 0.0)
            timed = _timed(candidate, candidate.copied(model), x)
            best = timed if timed.seconds * GAIN < best.seconds else best
    return best


def step_of(attack: Bound, eps: float) -> float | None:
    """The step size of an attack at a radius, in pixel units; None if it is not fixed.

    It comes from the function `step_length` beside the attack, or else from the options `step_size`
    and `relative_step`, if they are given.
    """
    length = answer_beside(attack, "step_length", eps=eps)
    if length is None and (length := attack.options.get("step_size")) is None:
        relative = attack.options.get("relative_step")
        return None if relative is None else float(relative) * eps
    return float(length)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _timed(candidate: AttackCompute, batched: BatchedModel, x: Tensor) -> AttackCompute:
    """The candidate, whose model is `batched`, with its seconds for each image: the fastest of the
    steps that fit into `PROBE_SECONDS`."""
    part = x[: candidate.batch]
    with candidate.active():

        def step() -> None:
            gradient(batched, part, _cross_entropy, labels)

        labels = torch.zeros(len(part), dtype=torch.int64, device=part.device)
        step()
        taken: list[float] = []
        while sum(taken) < PROBE_SECONDS:
            began = time.perf_counter()
            step()
            if part.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return replace(candidate, seconds=min(taken) / len(part))
