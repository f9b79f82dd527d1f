from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Best, Watch, attacked, batched_mean_logits, unwatched
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Attack, PluginOption


def transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    surrogate: nn.Module | None,
    *,
    attack: PluginOption[Attack] = "pgd",
) -> Tensor:
    """Transfer attack: `attack` runs on another model, the `surrogate` (Papernot et al. 2016).

    It needs no gradient of this model. If it breaks images that a white-box attack does not break,
    that attack is weak. Returns the unchanged image if the adversarial one is no better. Raises
    ConfigError without a surrogate.
    """
    if surrogate is None:
        raise ConfigError("transfer attacks another model, and none is given; name one as the surrogate")
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    with attacked(surrogate, draws.seed):
        crafted = attack(
            model=surrogate, x=x, y=y, ball=ball, draws=draws, watch=unwatched, target=target, start=start
        )
    for z in (x, crafted):
        logits = batched_mean_logits(model, z)
        watch(rows, z, logits)
        best.update(rows, z, logits)
    return best.x_adv


def needs_gradient() -> bool:
    return False
