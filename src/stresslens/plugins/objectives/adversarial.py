from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import TargetRule, attacked, batched_mean_logits, targets_of, unwatched
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws, mix
from stresslens.core.types import Attack, Chance, Loss, Radius, Step
from stresslens.plugins.objectives._overfitting_guard import GUARD, GUARDED, guarded, hard

FEW_STEPS = {"pgd": {"steps": 7}}


def adversarial(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    step: Step,
    *,
    loss: Loss = "cross_entropy",  # type: ignore[assignment]
    attack: Attack = FEW_STEPS,  # type: ignore[assignment]
    norm: Norm = "linf",
    eps: Radius = 8 / 255,
    share: Chance = 1.0,
    chance: Chance = 1.0,
    ramp: Chance = 0.0,
    target: TargetRule = None,
    guard: Attack = GUARD,  # type: ignore[assignment]
) -> Tensor:
    """Adversarial training: the loss on attacked images within `eps` (Madry et al. 2018, eq. 2.1).

    The attack uses the model in evaluation mode, the loss in training mode. `share` of each batch
    is attacked, and the rest stays clean. `chance` is the probability that a batch is attacked at
    all. Over the first `ramp` of training the radius grows from 0. FGSM training with a random
    start (Wong et al. 2020) is `attack: {fgsm: {random_start: true, relative_step: 1.25}}`.
    `target` makes the attack targeted: towards the least likely class, a random one, or a given
    one. For mixed labels the attack uses the class with the largest weight.

    Once an epoch, the accuracies under the attack and under `guard` are reported, for the same
    images. If only the guard's accuracy falls, training has overfitted to its attack (catastrophic
    overfitting). Raises ConfigError for an invalid radius or target.
    """
    ball = Ball(norm, eps * min(1.0, step.progress / ramp) if ramp else eps)
    label = hard(y)

    def worst(rows: Tensor) -> Tensor:
        clean, labels = x[rows], label[rows]
        aim = None
        if target is not None:
            logits = batched_mean_logits(model, clean)
            aim = targets_of(target, logits, labels, step.draws.fork(1).select(rows))
        return attack(model, clean, labels, ball, step.draws.fork(0).select(rows), unwatched, aim, None, None)

    everything = torch.arange(len(x), device=x.device)
    with attacked(model):
        guarded(model, x, label, lambda: worst(everything[:GUARDED]), step, ball=ball, guard=guard)
        rows = everything[:0] if ball.eps == 0 else _picked(step, everything, share, chance)
        images = x.index_copy(0, rows, worst(rows)) if len(rows) else x
    return loss(model(images), y)


def _picked(step: Step, everything: Tensor, share: float, chance: float) -> Tensor:
    """The positions in the batch that are attacked; drawn for the batch and for each image."""
    if chance < 1 and float(Draws(mix(step.draws.seed, 3), torch.tensor([step.batch])).uniform()) >= chance:
        return everything[:0]
    if share == 1:
        return everything
    order = step.draws.fork(4).uniform().argsort(stable=True)
    return order[: round(share * len(everything))].sort().values
