"""Attribution maps of any module or run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stresslens.api.arrays import Images, Labels
from stresslens.config import registry
from stresslens.core.class_names import names_of
from stresslens.core.copies import eager_module, usable_module
from stresslens.core.data import Split
from stresslens.core.dtypes import device_of
from stresslens.core.labels import label_numbers
from stresslens.core.torch_settings import initial_settings
from stresslens.evaluation.inputs import arrays_as_split, check_inputs, returning_logits
from stresslens.explanation.explanation import Explanation
from stresslens.explanation.image_selection import classes_to_explain
from stresslens.explanation.maps import compute_maps


@initial_settings()
def explain(
    model: nn.Module,
    images: Images | Split,
    explainer: str | Mapping[str, Any] = "integrated_gradients",
    *,
    answers: Labels | None = None,
    train: Split | None = None,
    check: bool = False,
    seed: int = 0,
) -> Explanation:
    """Computes attribution maps for any nn.Module from images in [0, 1] to logits. The model is unchanged
    afterwards.

    `images` (N, C, H, W) float in [0, 1] or uint8, or a Split; `explainer` is a plug-in by name or {name:
    {option: value}}; `answers` (N,) are the classes to explain, by default the predicted ones. Some
    explainers cover pixels with the mean of the training images: give these as `train`. `check` also
    computes the quality checks. Raises ConfigError and DataError."""
    wanted = None if answers is None else label_numbers(answers, names_of(model))
    model = eager_module(usable_module(model)) if isinstance(model, nn.Module) else model
    if isinstance(images, Split):
        given = images if wanted is None else replace(images, labels=wanted)
    else:
        given = arrays_as_split(images, wanted)
    split = check_inputs(model, given)
    name, _ = registry.name_and_options("explainers", explainer)
    bound = registry.resolve("explainers", explainer, base=Path.cwd())
    split, device = split.uncached(), device_of(model)
    x = split.floats(split.images[:]).to(device, torch.float32)
    y = split.labels if wanted is not None else torch.from_numpy(classes_to_explain(model, split))
    with returning_logits(model, split):
        maps, checks = compute_maps(
            model, bound, x, y.to(device), name=name, train=train, seed=seed, check=check
        )
    quality = None if checks is None else checks.as_json()
    return Explanation(
        *(maps.values.cpu().numpy(), y.cpu().numpy(), maps.signed, maps.unit, maps.notes, quality),
        images=x.cpu().numpy(),
        classes=names_of(model),
        explainer=name,
    )
