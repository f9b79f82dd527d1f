from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.attack_base import apart, attacked
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._finding import no_sign, sign
from stresslens.plugins.audits._forward import answers, few

AUDIT = "evaluation mode"


def evaluation_mode(
    model: nn.Module, images: tuple[Tensor, Tensor], *, tolerance: Positive = 1e-4
) -> Finding:
    """The model arrives in training mode and answers otherwise in it, or parts of it stay in
    training mode after eval().

    Dropout and batch statistics then take part in figures that are said to be of the model. A sign
    where any logits differ by more than `tolerance` of their range, or where any part stays.
    """
    x, _ = few(images)
    modes = {module: module.training for module in model.modules()}
    with attacked(model):
        stubborn = [
            name or type(module).__name__ for name, module in model.named_modules() if module.training
        ]
        still = answers(model, x)
        for module, mode in modes.items():
            module.training = mode
        arrived = answers(model, x)
    moved = int((apart(still, arrived) > tolerance).sum())
    if stubborn:
        return sign(
            AUDIT,
            f"{len(stubborn)} parts stay in training mode after eval(): {', '.join(stubborn[:3])}",
            len(x),
            "Let eval() and train() reach every part of the model (call super().train(mode)), and take all figures after eval().",
        )
    training = sum(modes.values())
    if training and moved:
        other = int((still.argmax(1) != arrived.argmax(1)).sum())
        return sign(
            AUDIT,
            f"{training} of {len(modes)} parts arrive in training mode, in which the answers for {moved} of {len(x)} images differ "
            f"({other} are taken for another class)",
            len(x),
            "Call model.eval() before evaluating and before attacking, and again after anything that may have called train().",
        )
    how = "in evaluation mode" if not training else "in a mode that makes no difference"
    return no_sign(AUDIT, f"the model is {how}, and eval() reaches all its {len(modes)} parts", len(x))
