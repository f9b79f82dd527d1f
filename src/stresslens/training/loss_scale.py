"""The scale of the loss in float16, whose small gradients would be zero without it (Micikevicius et al.
2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stresslens.core.devices import ComputeConfig

FLOOR = 1.0
"""The lowest scale: a gradient that is not finite even with it diverges."""


class LossScale:
    """Multiplies the loss in float16 by a scale before the backward pass, and divides the gradients by it
    before they are clipped and applied (`torch.amp.GradScaler`).

    The scale begins at 65,536. A gradient that is not finite halves it, and the update is skipped; after
    2,000 updates in a row it is doubled. In every other precision nothing is scaled.
    """

    def __init__(self, compute: ComputeConfig) -> None:
        self.on = compute.precision == "float16"
        self.scaler = torch.amp.GradScaler(torch.device(compute.device).type) if self.on else None

    @property
    def value(self) -> float:
        return float(self.scaler.get_scale()) if self.scaler is not None else 1.0

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of the loss, times the scale. An objective that wrote gradients itself returns
        a loss without a graph."""
        if loss.requires_grad:
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def can_skip(self) -> bool:
        """Whether an update whose gradient is not finite can be skipped: in float16, down to `FLOOR`."""
        return self.scaler is not None and self.value > FLOOR

    def unscale(self, optimizer: torch.optim.Optimizer) -> float:
        """Divides the gradients by the scale, and returns what they were divided by."""
        if self.scaler is None:
            return 1.0
        self.scaler.unscale_(optimizer)
        return self.value

    def step(self, optimizer: torch.optim.Optimizer, update: Callable[[], Any], *, skip: bool) -> None:
        """The optimizer's `update`, unless it is skipped; the scale of the next one."""
        if self.scaler is None:
            update()
            return
        if not skip:
            self.scaler.step(optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Any] | None:
        return self.scaler.state_dict() if self.scaler is not None else None

    def restore(self, saved: dict[str, Any] | None) -> None:
        """Takes the state from a checkpoint; one of an earlier version, or of another precision, has none."""
        if self.scaler is not None and saved:
            self.scaler.load_state_dict(saved)
