from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.inspection import grid, layer_to_explain, tapped
from stresslens.core.maps import Maps
from stresslens.plugins.explainers._passes import pieces, score, slopes


def gradcam(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    layer: str = "auto",
    kind: Literal["gradcam", "layercam"] = "gradcam",
    guided: bool = False,
) -> Maps:
    """Grad-CAM and LayerCAM: where a layer's activations support the class.

    The layer is by default the last convolution, or the last tokens that the logits depend on.
    `gradcam` weights the layer's channels by the mean gradient of the class's logit, adds them up
    and sets negative values to 0 (Selvaraju et al. 2017). `layercam` weights every position by its
    own positive gradient (Jiang et al. 2021). The map is enlarged to the image. `guided` multiplies
    it with the guided gradient at the pixels, for which every ReLU sets negative gradients to 0
    (Springenberg et al. 2015). Such maps show edges whatever the model has learned (Adebayo et al.
    2018), so read their randomisation check. Raises ConfigError with the valid names for a layer
    that is not laid out like the image.
    """
    name = layer_to_explain(model, x, layer)
    module = dict(model.named_modules(remove_duplicate=False))[name]
    maps = []
    for part, classes in pieces(x, y):
        with torch.enable_grad(), tapped(model, [name]) as outputs:
            top = score(model(part.detach().requires_grad_()), classes, "logit").sum()
            (grad,) = torch.autograd.grad(top, outputs[name])
        grids = [grid(values, module, part) for values in (outputs[name].detach(), grad)]
        activation, slope = (values for values in grids if values is not None)
        weights = slope.mean((2, 3), keepdim=True) if kind == "gradcam" else slope.relu()
        small = (weights * activation).sum(1, keepdim=True).relu()
        maps.append(F.interpolate(small.float(), x.shape[2:], mode="bilinear", align_corners=False)[:, 0])
    values = torch.cat(maps)
    if guided:
        values = values * slopes(_guided(model), x, y, "logit").abs().amax(1)
    empty = int((values.flatten(1).amax(1) <= 0).sum())
    notes = (f"{empty} of {len(x)} maps are empty: nothing in the layer supports the class",) if empty else ()
    return Maps(values.float().cpu(), False, f"evidence in {name}", notes)


class _Guided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        passed: Tensor = slope.relu() * (x > 0)
        return passed


class _GuidedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Guided.apply(x)  # type: ignore[no-untyped-call]
        return result


def _guided(model: nn.Module) -> nn.Module:
    """The model with guided ReLU layers; everything else is shared.

    Raises ConfigError if it has no ReLU layer.
    """
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ConfigError("gradcam: guided needs ReLU layers, and the model has none; leave it out")
    return _with_guided(model)


def _with_guided(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.ReLU):
        return _GuidedReLU()
    changed = copy.copy(module)
    changed._modules = {
        name: None if part is None else _with_guided(part) for name, part in module._modules.items()
    }
    return changed
