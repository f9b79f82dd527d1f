from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError
from stresslens.core.types import Step

TEMPLATES = (
    "a picture of a {}",
    "an image of the {}",
    "this is a {}",
    "{}, handwritten",
    "here you see a {}",
    "one {}",
)
MOST_SCALE = 100.0
"""How far the learnt scale of the logits may go (Radford et al. 2021)."""


def contrastive(
    net: nn.Module,
    inputs: Tensor,
    y: Tensor,
    step: Step,
    *,
    templates: Annotated[Sequence[str], Field(min_length=1)] = TEMPLATES,
    captions: Literal["true", "shuffled"] = "true",
) -> Tensor:
    """How well images (N, C, H, W) find their captions among the batch's, and captions their
    images: both towers are trained (Radford et al. 2021, figure 3).

    Each class of the batch has one caption, its name in one of the `templates`, drawn for the
    batch; the model's own templates may be others, so that what is evaluated was never trained on.
    All images of a class are right for its caption, each with an equal share of the target (Yang et
    al. 2022, UniCL, eq. 3). `captions: shuffled` is a control: every image has the caption of a
    random image of the batch, from which nothing can be learnt. Of several processes each compares
    its own part of the batch.

    Raises ConfigError for a model without a text side and for mixed labels.
    """
    clip: Any = net
    if not all(hasattr(net, part) for part in ("encode_image", "encode_text", "captions", "similarity")):
        raise ConfigError(
            "objective contrastive trains an image tower and a text tower, and this model has no text side; use "
            "`model: openclip` with `head: text`"
        )
    if y.ndim != 1:
        raise ConfigError("objective contrastive takes one label an image; leave mixup out")
    if captions == "shuffled":
        y = y[step.draws.uniform().argsort()]
    with torch.no_grad():
        clip.logit_scale.clamp_(max=math.log(MOST_SCALE))
    present, own = torch.unique(y, return_inverse=True)
    drawn = Draws(mix(step.draws.seed, step.batch), present).integers(len(templates))
    of_text = F.normalize(clip.encode_text(clip.captions(templates).to(y.device)[present, drawn]), dim=-1)
    logits = clip.similarity(F.normalize(clip.encode_image(inputs), dim=-1), of_text)
    right = F.one_hot(own, len(present)).to(logits.dtype)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, (right / right.sum(0)).T)) / 2
