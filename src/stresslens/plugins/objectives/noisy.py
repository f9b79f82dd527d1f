from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.types import Loss, Positive, Step


def noisy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: Step,
    *,
    loss: Loss = "cross_entropy",  # type: ignore[assignment]
    sigma: Positive = 0.25,
) -> Tensor:
    """The loss on images with Gaussian noise of standard deviation `sigma`, not clamped to the box.

    It trains models for the certificate `smoothing` with the same `sigma` (Cohen, Rosenfeld &
    Kolter 2019, section 3.3).
    """
    return loss(model(x + sigma * step.draws.normal(*x.shape[1:]).to(x.dtype)), y)
