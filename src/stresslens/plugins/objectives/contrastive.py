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
"""Upper limit of the learned scale of the logits (Radford et al. 2021)."""


def contrastive(
    net: nn.Module,
    inputs: Tensor,
    y: Tensor,
    step: Step,
    *,
    templates: Annotated[Sequence[str], Field(min_length=1)] = TEMPLATES,
    captions: Literal["true", "shuffled"] = "true",
) -> Tensor:
    """Contrastive image-text loss of CLIP: trains both towers (Radford et al. 2021, figure 3).

    Images (N, C, H, W) are matched with captions of the batch, and captions with images. Each class
    of the batch has one caption: its name in one of the `templates`, drawn for the batch. The
    model's own templates may be different, so that evaluation uses captions that were not trained
    on. All images of a class match its caption, with equal shares of the target (Yang et al. 2022,
    UniCL, eq. 3). `captions: shuffled` is a control without information: every image has the
    caption of a random image of the batch. With several processes, each compares only its own part
    of the batch.

    Raises ConfigError for a model without a text side and for mixed labels.
    """
    clip: Any = net
    if not all(hasattr(net, part) for part in ("encode_image", "encode_text", "captions", "similarity")):
        raise ConfigError(
            "objective contrastive trains an image tower and a text tower, and this model has no text side; "
            "use `model: openclip` with `head: text`"
        )
    if y.ndim != 1:
        raise ConfigError("objective contrastive takes one label an image; leave mixup out")
    if captions == "shuffled":
        y = y[step.draws.uniform().argsort()]
    with torch.no_grad():
        clip.logit_scale.clamp_(max=math.log(MOST_SCALE))
    present, class_of = torch.unique(y, return_inverse=True)
    drawn = Draws(mix(step.draws.seed, step.batch), present).integers(len(templates))
    of_text = F.normalize(clip.encode_text(clip.captions(templates).to(y.device)[present, drawn]), dim=-1)
    logits = clip.similarity(F.normalize(clip.encode_image(inputs), dim=-1), of_text)
    matches = F.one_hot(class_of, len(present)).to(logits.dtype)
    return (F.cross_entropy(logits, class_of) + F.cross_entropy(logits.T, (matches / matches.sum(0)).T)) / 2


def has_softmax() -> bool:
    return True
