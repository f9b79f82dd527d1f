from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stresslens.core.inspection import layer_to_explain, spatial, tapped
from stresslens.core.panels import Grid, Panel, Picture, image_pixels, number_pixels
from stresslens.core.types import Count


def activations(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    classes: Sequence[str],
    *,
    layers: Sequence[str] | None = None,
    channels: Count = 16,
    images: Count = 4,
) -> Panel:
    """Activations of layers: a row for each image, with a picture of each of the first channels.

    All pictures of a layer have the same colour scale. By default all convolutions are shown, or
    the tokens after every block of a transformer; of a layer that is called several times, its last
    call. Raises ConfigError with the valid names.
    """
    x, y = x[:images], y[:images]
    modules = dict(model.named_modules(remove_duplicate=False))
    available = spatial(model, x)
    convolutions = [name for name in available if isinstance(modules[name], nn.Conv2d)]
    blocks = [
        name
        for name in available
        if name.rpartition(".")[2].isdigit() and any(True for _ in modules[name].children())
    ]
    names = (
        [layer_to_explain(model, x, name) for name in layers]
        if layers
        else blocks or convolutions or list(available)
    )
    with torch.no_grad(), tapped(model, names) as outputs:
        model(x)
    pictures = image_pixels(x)
    parts = []
    for name in names:
        maps = available[name].grid(outputs[name])
        values = maps[:, :channels].float().cpu().numpy()
        pixels, scale = number_pixels(values)
        rows = [[Picture(pictures[k], classes[int(y[k])]), *map(Picture, pixels[k])] for k in range(len(x))]
        shown = f", the first {channels} shown" if maps.shape[1] > channels else ""
        title = f"{name}: {maps.shape[1]} channels of {maps.shape[2]}×{maps.shape[3]}{shown}"
        columns = ["image", *map(str, range(values.shape[1]))]
        parts.append(Grid(title, rows, [classes[int(label)] for label in y], columns, scale))
    return Panel(parts)
