from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stresslens.core.types import NonNegative, Parameters


def sgd(parameters: Parameters, lr: float, *, weight_decay: NonNegative = 0.0) -> torch.optim.Optimizer:
    """Stochastic gradient descent without momentum: p ← p - lr·(gradient + weight_decay·p)."""
    return _Plain(parameters, {"lr": lr, "weight_decay": weight_decay})


class _Plain(torch.optim.Optimizer):
    """torch.optim.SGD without its bookkeeping, which takes longer than a small model's gradient."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure else None
        with torch.no_grad():
            for group in self.param_groups:
                with_gradient = [p for p in group["params"] if p.grad is not None]
                if not with_gradient:
                    continue
                gradients: list[Tensor] = [p.grad for p in with_gradient]
                if group["weight_decay"]:
                    gradients = list(
                        torch._foreach_add(gradients, with_gradient, alpha=group["weight_decay"])
                    )
                torch._foreach_add_(with_gradient, gradients, alpha=-group["lr"])
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # keeps torch from wrapping it in the profiler's record
