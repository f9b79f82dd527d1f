"""Attacks on any module or run, and the recount of adversarial images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from stresslens.api.arrays import Images, Labels
from stresslens.config.threat_model import resolved_threat_model, with_known_names
from stresslens.core.ball import Norm
from stresslens.core.class_names import names_of
from stresslens.core.copies import eager_module, usable_module
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.torch_settings import initial_settings
from stresslens.evaluation.estimator import Estimated
from stresslens.evaluation.inputs import check_inputs, returning_logits
from stresslens.robustness import verification
from stresslens.robustness.attack_run import audited, robustness_config
from stresslens.robustness.measure import measure
from stresslens.robustness.result import AttackResult
from stresslens.robustness.verification import Verification


@initial_settings()
def attack(
    model: nn.Module,
    images: Images | Split,
    labels: Labels | None = None,
    *,
    radii: str | float | Sequence[float | str],
    norm: str = "linf",
    protocol: str | Sequence[Any] = "fast",
    out: str | Path | None = None,
    surrogate: nn.Module | None = None,
    n_images: int | Literal["all"] = "all",
    **options: Any,
) -> AttackResult:
    """Finds the smallest radius that breaks each image, for any nn.Module from images in [0, 1] to logits.

    `images` (N, C, H, W) float in [0, 1] or uint8 with `labels` (N,), or a Split. `radii` in pixel units:
    8/255, [0, 0.05] or "0:0.1:0.01". `n_images` are drawn at random from them. `options` are those of
    `robustness:` in a study file (individual_attacks, target, success, eot_samples, bpda, audit, seed).
    With `out`, a folder, the result is kept there, and a call that was killed resumes. The model is
    unchanged afterwards. Raises ConfigError and DataError, before anything is computed, for what cannot be
    attacked."""
    for name, instead in (
        ("split", "give the images themselves"),
        ("certificates", "they belong to runs: stresslens attack --certificate"),
    ):
        if name in options:
            raise ConfigError(f"attack has no option {name!r}: {instead}")
    if isinstance(model, nn.Module) and any(isinstance(part, Estimated) for part in model.modules()):
        raise ConfigError(
            "the model is an estimator; attacks follow gradients, which it lacks, so it would look more "
            "robust than it is"
        )
    model, surrogate = usable_module(model), usable_module(surrogate)
    split = check_inputs(model, images, labels).uncached()
    asked = robustness_config(
        {
            "images": n_images,
            **options,
            "radii": list(radii) if isinstance(radii, Sequence) and not isinstance(radii, str) else radii,
            "norm": norm,
            "protocol": protocol if isinstance(protocol, str) else list(protocol),
        }
    )
    threat = with_known_names(resolved_threat_model(asked, Path.cwd()), names_of(model))
    model = eager_module(model)
    surrogate = eager_module(surrogate) if isinstance(surrogate, nn.Module) else surrogate
    with returning_logits(model, split), returning_logits(surrogate, split):
        robust, place = measure(
            model, split, threat, home=Path(out) if out is not None else None, surrogate=surrogate
        )
        if asked.audit and not robust.result.audited:
            robust = audited(robust, model, split, threat, surrogate=surrogate)
            if place is not None:
                robust.save(place)
    return robust


@initial_settings()
def verify(
    model: nn.Module,
    adversarials: Tensor | np.ndarray,
    images: Images,
    labels: Labels,
    *,
    eps: float | Tensor | np.ndarray,
    norm: Norm = "linf",
    claimed: float | None = None,
) -> Verification:
    """Recounts given adversarial images: are they inside ball and box, and what does the model answer in
    float32?

    All arrays have one entry an image; `eps` is one radius, or one for each image; `claimed` is a published
    robust accuracy to compare with. Raises ConfigError and DataError for what cannot be read."""
    net = usable_module(model)
    return verification.verify(net, adversarials, images, labels, eps=eps, norm=norm, claimed=claimed)
