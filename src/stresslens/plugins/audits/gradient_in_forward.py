from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding
from stresslens.plugins.audits._forward import few, logits_of

AUDIT = "gradient in forward"


def gradient_in_forward(model: nn.Module, images: tuple[Tensor, Tensor]) -> Finding:
    """The forward pass computes gradients: the model adapts to the image, or purifies it.

    This alone is a sign (AutoAttack's check; Croce et al. 2022, "Evaluating the adversarial
    robustness of adaptive test-time defenses").
    """
    x, _ = few(images, 32)
    calls: list[str] = []
    with attacked(model), _recorded(calls):
        logits_of(model, x)
    if not calls:
        return no_sign(AUDIT, f"a pass over {len(x)} images computes no gradient", len(x))
    return sign(
        AUDIT,
        f"a pass over {len(x)} images calls {', '.join(sorted(set(calls)))} ({len(calls)} times)",
        len(x),
        "Attack the whole process: through its inner steps (create_graph=True), or attack the model without "
        "them and transfer; a gradient that stops at the adaptation is not informative.",
    )


@contextmanager
def _recorded(calls: list[str]) -> Iterator[None]:
    """Appends the name of every call that starts a backward pass inside the context."""
    originals = {name: getattr(torch.autograd, name) for name in ("grad", "backward")}

    def recorded(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(f"torch.autograd.{name}")
            return original(*args, **options)

        return call

    for name, original in originals.items():
        setattr(torch.autograd, name, recorded(name, original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(torch.autograd, name, original)
