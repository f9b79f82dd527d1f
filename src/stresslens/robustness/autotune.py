"""How a search runs its gradients: precision, memory format, threads and batch size, chosen by
measuring on the model itself."""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config.registry import Bound
from stresslens.core.attack_base import BatchedModel, gradient
from stresslens.core.devices import on_threads
from stresslens.core.layers import pooled_first

BATCHES = (64, 128, 256, 512)
PROBE_SECONDS = 0.03
"""How long each way is timed."""
GAIN = 1.1
"""How many times as fast another way must be to be taken."""
RESOLVED = 1 / 128
"""Steps at least this long, in pixel units, can be told apart in bfloat16, which resolves 1/256
near white."""


@dataclass(frozen=True)
class AttackCompute:
    """What the bits of a search depend on besides the code; `seconds` a gradient takes for each image."""

    precision: Literal["float32", "bfloat16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    threads: int = 1
    batch: int = BATCHES[1]
    passes: int = 1
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def model(self, model: nn.Module, precision: str | None = None) -> BatchedModel:
        """What an attack sees; with another precision than `steering`'s where its steps are too
        short for it."""
        last = torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format
        try:
            own = pooled_first(copy.deepcopy(model)).to(memory_format=last)  # type: ignore[call-overload]
        except Exception:  # a module of the user's own may hold what cannot be copied
            return BatchedModel(model, batch=self.batch, passes=self.passes)
        if (precision or self.precision) == "bfloat16":
            own = own.to(torch.bfloat16)
        first = next((p.dtype for p in own.parameters() if p.is_floating_point()), None)
        return BatchedModel(own, batch=self.batch, passes=self.passes, dtype=first, memory_format=last)

    def active(self) -> AbstractContextManager[None]:
        """These threads for the duration."""
        return on_threads(self.threads)


_measured: dict[tuple[Any, ...], AttackCompute] = {}


def autotune_attack(model: nn.Module, x: Tensor, *, passes: int) -> AttackCompute:
    """The quickest way to a gradient on images like x (n, C, H, W); the model must be held still
    (`attacked`).

    Measured once for each architecture and shape of images, in about half a second.
    """
    most = torch.get_num_threads()
    key = (repr(model), tuple(x.shape), str(x.device), most, passes)
    if key not in _measured:
        _measured[key] = _quickest(model, x, passes, most)
    return _measured[key]


def _quickest(model: nn.Module, x: Tensor, passes: int, most: int) -> AttackCompute:
    formats = (
        ["contiguous", "channels_last"]
        if any(isinstance(m, nn.Conv2d) for m in model.modules())
        else ["contiguous"]
    )
    best = AttackCompute("float32", "contiguous", most, min(128, max(1, len(x))), passes, 0.0)
    best = _timed(best, model, x)
    counts = [most] if most == 1 else [most, 1]
    for precision in ("float32", "bfloat16"):
        for memory_format in formats:
            for count in counts:
                way = AttackCompute(precision, memory_format, count, best.batch, passes, 0.0)  # type: ignore[arg-type]
                with suppress(
                    RuntimeError, TypeError, NotImplementedError
                ):  # a model that cannot do it is steered in float32
                    timed = _timed(way, model, x)
                    best = timed if timed.seconds * GAIN < best.seconds else best
    for batch in BATCHES:
        if batch <= len(x) and batch != best.batch:
            timed = _timed(
                AttackCompute(best.precision, best.memory_format, best.threads, batch, passes, 0.0), model, x
            )
            best = timed if timed.seconds * GAIN < best.seconds else best
    return best


def step_of(attack: Bound, eps: float) -> float | None:
    """The length of an attack's steps at a radius, in pixel units; None where it has no fixed one."""
    options = attack.options
    given = options.get("step_size")
    if given is not None:
        return float(given)
    relative, steps = options.get("relative_step"), options.get("steps")
    if relative is not None:
        return float(relative) * eps
    name = attack.function.__name__
    return eps if name == "fgsm" else 2.5 * eps / float(steps or 40) if name == "pgd" else None


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _timed(way: AttackCompute, model: nn.Module, x: Tensor) -> AttackCompute:
    """The same with the seconds it takes for each image: the best of what fits into `PROBE_SECONDS`."""
    part = x[: way.batch]
    with way.active():
        steered = way.model(model)

        def step() -> None:
            gradient(steered, part, _cross_entropy, labels)

        labels = torch.zeros(len(part), dtype=torch.int64, device=part.device)
        step()
        taken: list[float] = []
        while sum(taken) < PROBE_SECONDS:
            began = time.perf_counter()
            step()
            if part.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
    return AttackCompute(
        way.precision, way.memory_format, way.threads, way.batch, way.passes, min(taken) / len(part)
    )
