from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.answers import answer_with_confidence, predicted
from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Panel, Picture, image_pixels
from stresslens.core.types import Count


def adversarial_examples(
    model: nn.Module,
    adversarials: tuple[Tensor, Tensor, Tensor] | None,
    classes: Sequence[str],
    *,
    images: Count = 10,
) -> Panel:
    """Adversarial images beside the original ones, with the change between them, smallest change
    first.

    `adversarials` are those that the run's attacks saved: images, adversarial images (n, C, H, W
    each) and labels (n,). The change is magnified so that its largest value is half of the scale,
    around grey. Raises ConfigError for a run that was not attacked.
    """
    if adversarials is None or not len(adversarials[0]):
        raise ConfigError(
            "adversarial_examples: the run has no adversarial images; "
            "attack it first (robustness: …, or stresslens attack)"
        )
    x, x_adv, y = adversarials
    order = (x_adv - x).flatten(1).abs().amax(1).argsort(stable=True)[:images]
    x, x_adv, y = x[order], x_adv[order], y[order]
    change = x_adv - x
    scale = 0.5 / change.flatten(1).abs().amax(1).clamp_min(1e-12)
    with torch.no_grad():
        before, after = (model(images).softmax(1) for images in (x, x_adv))
    shown = [image_pixels(values) for values in (x, 0.5 + change * scale[:, None, None, None], x_adv)]
    rows = [
        [
            Picture(
                shown[0][k], answer_with_confidence(before[k], classes), bool(predicted(before[k]) != y[k])
            ),
            Picture(shown[1][k], f"change × {float(scale[k]):.0f}"),
            Picture(
                shown[2][k], answer_with_confidence(after[k], classes), bool(predicted(after[k]) != y[k])
            ),
        ]
        for k in range(len(x))
    ]
    largest = change.flatten(1).abs().amax(1).tolist()
    names = [f"{classes[int(label)]}: {size:.3f} at most" for label, size in zip(y, largest)]
    grid = Grid("Changes that change the prediction", rows, names, ["image", "change", "changed image"])
    return Panel([grid], (), {"largest_change": largest})
