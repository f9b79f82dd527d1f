"""Autotunes attacks: chooses the precision, memory format, threads and batch size in which the
gradients of a model are computed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config.registry import Bound
from stresslens.core import compute_choice
from stresslens.core.attack_base import BatchedModel, gradient
from stresslens.core.compute_choice import bfloat16_in_hardware, memory_formats, threads_for
from stresslens.core.copies import CHECKED, fast_copy, faster, use_as_it_is
from stresslens.core.devices import MemoryFormat, Precision, on_threads
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError
from stresslens.core.gradient_free import why_no_gradient
from stresslens.core.layer_table import layer_table
from stresslens.core.pass_memory import images_at_once

BATCH, BATCH_OF_SMALL = 128, 512
"""Images in a batch, and those of a model with fewer than `SMALL` multiply-adds, where calling torch
takes longer than computing."""
SMALL = 1e5
OPERATIONS_A_SECOND = 5e10
"""Floating-point operations of a processor core in a second, for estimates."""
RESOLVED = 1 / 128
"""Steps of at least this length, in pixel units, can be taken in bfloat16, whose resolution near
white is 1/256."""


@dataclass(frozen=True)
class AttackCompute:
    """How gradients of attacks are computed. The exact bits of a result depend on it.

    `batch` is the batch size, `passes` the number of forward passes that a random model is averaged
    over, `seconds` an estimate of the time of a gradient for each image, from its multiply-adds
    (earlier versions measured it).
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    threads: int = 1
    batch: int = BATCH
    passes: int = 1
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def model(self, model: nn.Module, x: Tensor, precision: str | None = None) -> BatchedModel:
        """The model as an attack sees it, in the given precision or by default in `self.precision`:
        a copy that is checked on images x (`fast_copy`), or the model itself, with a Notice. A model
        without a gradient is never copied: it is no computation of torch that could be faster."""
        if why_no_gradient(model):
            return self.uncopied(model)
        try:
            copy = fast_copy(model, as_input(x, model), memory_format=self.layout)
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


def autotune_attack(model: nn.Module, x: Tensor, *, passes: int) -> AttackCompute:
    """How gradients are computed on images like x (n, C, H, W); the model must be frozen
    (`attacked`).

    Precision and memory format are as `compute_choice` says; threads and batch size follow from the
    multiply-adds of an image.
    """
    most, device = torch.get_num_threads(), str(x.device)
    multiply_adds = _multiply_adds(model, x)
    usually = min(BATCH if multiply_adds >= SMALL else BATCH_OF_SMALL, max(1, len(x)))
    batch = images_at_once(model, x.shape[1:], usually, gradient=True)
    operations = 4.0 * multiply_adds * batch  # a forward pass, and a backward pass to the images
    threads = threads_for(operations, most) if x.device.type == "cpu" else most
    seconds = 4.0 * multiply_adds / OPERATIONS_A_SECOND / threads * passes
    usual = AttackCompute("float32", "contiguous", threads, batch, passes, seconds)
    if why_no_gradient(model):
        return usual
    possible: dict[Precision, list[MemoryFormat]] = {
        "float32": [each for each in memory_formats(model, device, "float32") if _works(model, x, each)]
    }
    if not possible["float32"]:  # a user's module may not bear copying; then there is nothing to choose
        return usual
    if operations >= compute_choice.MEASURED_FROM and bfloat16_in_hardware(device):
        formats = [each for each in memory_formats(model, device, "bfloat16") if each in possible["float32"]]
        narrow = [each for each in formats if _takes_bfloat16(model, x, each)]
        possible |= {"bfloat16": narrow} if narrow else {}

    def prepare(precision: Precision, memory_format: MemoryFormat) -> Callable[[], None]:
        candidate = replace(usual, precision=precision, memory_format=memory_format)  # type: ignore[arg-type]
        part = x[: min(batch, compute_choice.images_to_time(multiply_adds))]
        return partial(_step, candidate.copied(model), part)

    about = {"what": "attack", "model": type(model).__name__, "shape": list(x.shape[1:]), "batch": batch}
    choice = compute_choice.choose(
        model, possible, prepare, operations=operations, device=device, about=about
    )
    memory_format = choice.formats[choice.precision]
    return replace(usual, precision=choice.precision, memory_format=memory_format)  # type: ignore[arg-type]


def _multiply_adds(model: nn.Module, x: Tensor) -> int:
    """Multiply-adds of an image; of a module that cannot be looked into, the number of its
    parameters."""
    try:
        channels, height, width = x.shape[1:]
        return layer_table(model, (channels, height, width)).multiply_adds
    except Exception:  # a user's module may do anything
        return sum(parameter.numel() for parameter in model.parameters())


def _works(model: nn.Module, x: Tensor, memory_format: MemoryFormat) -> bool:
    """Whether a fast copy in this memory format computes what the model does."""
    try:
        layout = AttackCompute(memory_format=memory_format).layout
        fast_copy(model, as_input(x, model), memory_format=layout)
    except Exception:  # a user's module may do anything
        return False
    return True


def _takes_bfloat16(model: nn.Module, x: Tensor, memory_format: MemoryFormat) -> bool:
    try:
        _step(AttackCompute("bfloat16", memory_format).copied(model), x[:CHECKED])
    except (RuntimeError, TypeError, NotImplementedError, ConfigError):
        return False
    return True


def step_of(attack: Bound, eps: float) -> float | None:
    """The step size of an attack at a radius, in pixel units; None if it is not fixed.

    It comes from the function `step_length` beside the attack, or else from the options `step_size`
    and `relative_step`, if they are given.
    """
    length = attack.answer_beside("step_length", eps=eps)
    if length is None and (length := attack.options.get("step_size")) is None:
        relative = attack.options.get("relative_step")
        return None if relative is None else float(relative) * eps
    return float(length)


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def _step(batched: BatchedModel, x: Tensor) -> None:
    """The gradient of the cross-entropy at images x (n, C, H, W)."""
    gradient(batched, x, _cross_entropy, torch.zeros(len(x), dtype=torch.int64, device=x.device))
