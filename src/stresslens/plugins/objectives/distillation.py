from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.dtypes import at_least_float32
from stresslens.core.types import Chance, Loss, PluginOption, Positive


def distillation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    teacher: nn.Module,
    *,
    run: str,
    loss: PluginOption[Loss] = "cross_entropy",
    temperature: Positive = 4.0,
    alpha: Chance = 0.9,
) -> Tensor:
    """Knowledge distillation: learns the answers of a trained teacher (Hinton, Vinyals & Dean 2015).

    `run` is another run of the study, whose run with the same seed is the teacher, or the folder of a run
    with a slash (`./runs/a/b/seed-0`). The loss is `alpha` · temperature² · KL(teacher ‖ model) of the
    softmax of logits divided by the `temperature`, whose gradient is that of their section 2, plus
    1 - `alpha` times the `loss` of the labels. The teacher is in evaluation mode, sees the images behind
    `train.augment`, and gets no gradient.
    """
    with torch.no_grad():
        taught = F.log_softmax(at_least_float32(teacher(x)) / temperature, 1)
    logits = model(x)
    learned = F.log_softmax(at_least_float32(logits) / temperature, 1)
    divergence = F.kl_div(learned, taught, reduction="batchmean", log_target=True)
    return alpha * temperature**2 * divergence + (1 - alpha) * loss(logits=logits, y=y)


def has_softmax() -> bool:
    return True
