"""The result of an attack that is kept in a folder: is it of this model?

Two things must agree: the digest of all that the model is made of, and its answers to some of the
images that were attacked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.dtypes import as_input, device_of
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.module_digest import digest_of
from stresslens.robustness.attack_batch import verdict_model
from stresslens.robustness.result import AttackResult

PROBED = 4
"""Images on which the model is run to see which of its attributes a forward pass changes."""
ANSWERED = 64
"""At most so many images, and so many adversarial images, whose answers are compared."""
CONFIDENCE = 1e-3
"""The largest difference between two confidences that count as the same; rounding makes about 1e-6."""


def attack_fingerprint(request: str, model: nn.Module, surrogate: nn.Module | None, x: Tensor) -> str:
    """The fingerprint of an attack: what is asked for, and the models with all that they are made of.

    `x` are images (N, C, H, W) of the attack. The models must be frozen (core.attack_base.attacked).
    """
    return fingerprint_of(
        [request, *(None if net is None else _digest(net, x[:PROBED]) for net in (model, surrogate))]
    )


def _digest(model: nn.Module, x: Tensor) -> str:
    """A digest of the model without what its own forward pass changes (kept activations, a count of
    calls)."""
    seen = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for images in (x, 1 - x):
            model(as_input(images, model))
            seen.append(digest_of(model))
    first, second = seen
    return second.without(second.changed_since(first)).text()


def is_result_of(
    kept: AttackResult, model: nn.Module, images: Callable[[np.ndarray], Tensor], seed: int
) -> bool:
    """Whether the model gives the answers that a kept result has stored, for images and adversarial
    images; `images` returns those at some positions in the result.

    The answers of a random model say nothing, and are not compared.
    """
    passes = kept.result.compute.passes
    if passes is not None and passes > 1:
        return True
    logits = verdict_model(model, passes=1, seed=seed)
    arrays = kept.arrays
    for x_of, name in (
        (images, "clean"),
        (lambda rows: torch.from_numpy(arrays["adversarials"][rows]), "adversarial"),
    ):
        classes, confidence = arrays[f"{name}_prediction"], arrays[f"{name}_confidence"]
        rows = np.unique(np.linspace(0, len(classes) - 1, min(ANSWERED, len(classes))).astype(int))
        rows = rows[classes[rows] >= 0]
        if not len(rows):
            continue
        x = x_of(rows)
        device = device_of(model)
        with torch.no_grad():
            found = logits(x.to(device, torch.float32)).double().softmax(1).cpu().numpy()
        now = found[np.arange(len(rows)), classes[rows]]
        if not np.allclose(now, confidence[rows], rtol=0, atol=CONFIDENCE, equal_nan=True):
            return False
    return True


def _digest_of_0_1(model: nn.Module, home: Callable[[str], str] | None = None) -> str:
    """The digest of version 0.1.0: a hash of the architecture, the plain attributes of every module,
    and all parameters and buffers.

    Of a class, only the name counts, not the module that defines it. With `home`, a function from
    the path of that module to a name, this name counts too.
    """
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        plain_attributes = {
            k: v
            for k, v in vars(module).items()
            if k != "training" and isinstance(v, bool | int | float | str | tuple)
        }
        kind = (
            type(module).__qualname__
            if home is None
            else f"{home(type(module).__module__)}.{type(module).__qualname__}"
        )
        digest.update(f"{name} {kind} {sorted(plain_attributes.items())!r}".encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().double().numpy()).data)
    return digest.hexdigest()[:16]


def fingerprints_of_0_1(request: str, model: nn.Module, surrogate: nn.Module | None) -> Iterator[str]:
    """The fingerprints that earlier versions may have written for the same attack, or for one on a
    model that differs in what they did not look at.

    Version 0.1.0 also hashed the module that defines each class. Its plug-ins were in other modules,
    and the user's classes may have been defined in a script.
    """
    homes: list[Callable[[str], str] | None] = [
        None,
        _home_in_0_1,
        lambda path: _home_in_0_1(path, user_module="__main__"),
    ]
    for home in homes:
        yield fingerprint_of(
            [request, *(None if net is None else _digest_of_0_1(net, home) for net in (model, surrogate))]
        )


def _home_in_0_1(path: str, user_module: str | None = None) -> str:
    """The path of a module in version 0.1.0; `user_module` replaces the path of a user's own
    one."""
    if user_module is not None and path.partition(".")[0] not in (
        "torch",
        "torchvision",
        "timm",
        "open_clip",
        "stresslens",
    ):
        return user_module
    return path.replace("stresslens.plugins.", "stresslens.", 1)
