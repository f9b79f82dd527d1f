from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.attack_base import attacked, batched_mean_logits, gradient
from stresslens.core.ball import Ball, Norm, falling
from stresslens.core.types import Count, Loss, NonNegative, PluginOption, Positive, Radius, Step

START = 0.001
"""Standard deviation of the initial noise; at the clean image the divergence has no gradient."""
RELATIVE_STEP = 0.25
"""The length of a step in linf and l2, in radii."""


def trades(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: Step,
    *,
    loss: PluginOption[Loss] = "cross_entropy",
    norm: Norm = "linf",
    eps: Radius = 8 / 255,
    beta: NonNegative = 6.0,
    steps: Count = 10,
    relative_step: Positive | None = None,
) -> Tensor:
    """TRADES: the loss on clean images plus `beta` times KL(clean ‖ perturbed) (Zhang et al. 2019).

    See eq. 3 and algorithm 1; the paper's β is 1/λ, mostly 6. The perturbation within `eps`
    maximises the divergence. It is found in evaluation mode by `steps` steps of `relative_step`
    radii, by default 0.25; in l1 they fall from 4 radii to 0.02, as in `pgd`. The loss is computed
    in training mode, and its gradient passes through both arguments of the divergence. Raises
    ConfigError for an invalid radius.
    """
    ball = Ball(norm, eps)
    with attacked(model):
        clean = F.log_softmax(batched_mean_logits(model, x), 1)
        x_adv = ball.project(x + START * step.draws.normal(*x.shape[1:]).to(x.dtype), x)
        for index in range(steps):
            grad = gradient(model, x_adv, _divergence, clean)[2]
            relative = relative_step or (falling(index, steps) if norm == "l1" else RELATIVE_STEP)
            x_adv = ball.project(ball.gradient_step(grad, x_adv, relative * ball.radius(x)), x)
    logits = model(x)
    return loss(logits=logits, y=y) + beta * _divergence(model(x_adv), F.log_softmax(logits, 1)).mean()


def has_softmax() -> bool:
    return True


def _divergence(logits: Tensor, log_p: Tensor) -> Tensor:
    """(N,) KL(p ‖ softmax(logits)) of log-probabilities log_p (N, K)."""
    return F.kl_div(F.log_softmax(logits, 1), log_p, reduction="none", log_target=True).sum(1)
