from __future__ import annotations

from torch import Tensor, nn

from stresslens.core.answers import predicted
from stresslens.core.attack_base import apart, attacked
from stresslens.core.findings import no_sign, sign
from stresslens.core.types import Finding, Positive
from stresslens.plugins.audits._forward import few, logits_of

AUDIT = "evaluation mode"


def evaluation_mode(
    model: nn.Module, images: tuple[Tensor, Tensor], *, tolerance: Positive = 1e-4
) -> Finding:
    """The model is given in training mode, or parts of it stay in training mode after eval().

    Dropout and batch statistics then change the results. stresslens attacks in evaluation mode in
    any case; other figures of the same model may come from the mode in which it was given. A sign
    if logits in that mode differ by more than `tolerance` of their range, or if any part stays in
    training mode.
    """
    x, _ = few(images)
    modes = {module: module.training for module in model.modules()}
    with attacked(model):
        stubborn = [
            name or type(module).__name__ for name, module in model.named_modules() if module.training
        ]
        evaluated = logits_of(model, x)
        for module, mode in modes.items():
            module.training = mode
        as_given = logits_of(model, x)
    moved = int((apart(evaluated, as_given) > tolerance).sum())
    if stubborn:
        return sign(
            AUDIT,
            f"{len(stubborn)} parts stay in training mode after eval(): {', '.join(stubborn[:3])}",
            len(x),
            "Let eval() and train() reach every part of the model (call super().train(mode)), "
            "and measure everything after eval().",
        )
    training = sum(modes.values())
    if training and moved:
        other = int((predicted(evaluated) != predicted(as_given)).sum())
        return sign(
            AUDIT,
            f"{training} of {len(modes)} parts were given in training mode, "
            f"in which the logits of {moved} of {len(x)} images differ ({other} get another class); "
            "stresslens put them in evaluation mode while it attacked, and back afterwards",
            len(x),
            "Call model.eval() before evaluating and before attacking, and again after anything that may "
            "have called train(). Figures measured elsewhere in training mode are of another function.",
        )
    how = (
        f"with {training} of {len(modes)} parts in training mode, which makes no difference"
        if training
        else "in evaluation mode"
    )
    return no_sign(AUDIT, f"the model was given {how}; eval() reaches all its {len(modes)} parts", len(x))
