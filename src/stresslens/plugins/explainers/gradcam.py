from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from stresslens.core.attack_base import apart
from stresslens.core.center_crop import enlarged, seen_part
from stresslens.core.ensembles import ensemble_in
from stresslens.core.errors import ConfigError
from stresslens.core.gradient_graph import is_mask, is_opaque, is_relu, nodes
from stresslens.core.inspection import layer_to_explain, spatial, tapped, without_compiling
from stresslens.core.maps import Maps
from stresslens.plugins.explainers._passes import pieces, score

ROUNDING = 1e-3
"""Largest difference of logits, as a share of their range, between a pass that is watched and one
that is not."""


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

    The layer is by default the last convolution, or the last tokens that the logits depend on; of a
    layer that is called several times, its last call. The images do not decide it. For an ensemble it is
    the mean of the maps of its members.
    `gradcam` weights the layer's channels by the mean gradient of the class's logit, adds them up
    and sets negative values to 0 (Selvaraju et al. 2017). `layercam` weights every position by its
    own positive gradient (Jiang et al. 2021). The map is enlarged to the image. `guided` multiplies
    it with the guided gradient at the pixels, for which every ReLU that is computed, as a module or
    as a function, sets negative gradients to 0 (Springenberg et al. 2015). Such maps show edges
    whatever the model has learned (Adebayo et al. 2018), so read their randomisation check. Raises
    ConfigError with the valid names for a layer that is not laid out like the image, and for
    `guided` where the model computes no ReLU, or steps that may hide one.
    """
    names = _layers(model, x, layer)
    layouts = spatial(model, x)
    sides = (x.shape[2], x.shape[3])
    maps = []
    for part, classes in pieces(model, x, y):
        with torch.enable_grad(), tapped(model, names) as outputs:
            logits = model(part.detach().requires_grad_())
            total = score(logits, classes, "logit").sum()
            slopes = [_gradient(total, outputs[name]) for name in names]
        _check_unchanged(model, part, logits.detach(), names[-1])
        of_layers = []
        for name, grad in zip(names, slopes):
            activation, slope = layouts[name].grid(outputs[name].detach()), layouts[name].grid(grad)
            weights = slope.mean((2, 3), keepdim=True) if kind == "gradcam" else slope.relu()
            small = (weights * activation).sum(1, keepdim=True).relu()
            of_layers.append(enlarged(small.float(), seen_part(model, sides), sides))
        maps.append(torch.stack(of_layers).mean(0))
    values = torch.cat(maps)
    if guided:
        values = values * torch.cat([_guided(model, *part).abs().amax(1) for part in pieces(model, x, y)])
    empty = int((values.flatten(1).amax(1) <= 0).sum())
    notes = (f"{empty} of {len(x)} maps are empty: nothing in the layer supports the class",) if empty else ()
    return Maps(values.float().cpu(), False, f"evidence in {', '.join(names)}", notes)


def _layers(model: nn.Module, x: Tensor, layer: str) -> list[str]:
    """The layer to explain; of an ensemble, unless one is named, that of each member."""
    ensemble = ensemble_in(model)
    if ensemble is None or layer != "auto":
        return [layer_to_explain(model, x, layer)]
    place = next(name for name, part in model.named_modules() if part is ensemble)
    return [
        ".".join(filter(None, [place, "members", str(number), layer_to_explain(member, x)]))
        for number, member in enumerate(ensemble.members)
    ]


def cost(*, guided: bool) -> float:
    return 3 if guided else 2


def _gradient(total: Tensor, values: Tensor) -> Tensor:
    """Zero where the score does not depend on the values. Raises ConfigError for a model without
    gradients."""
    if not total.requires_grad:
        raise ConfigError("the model passes no gradient back to its input; occlusion needs none")
    slope = None
    if values.requires_grad:
        (slope,) = torch.autograd.grad(total, values, allow_unused=True, retain_graph=True)
    return torch.zeros_like(values) if slope is None else slope


def _check_unchanged(model: nn.Module, x: Tensor, logits: Tensor, name: str) -> None:
    """Raises ConfigError if the model answers otherwise while the layer is watched."""
    with torch.no_grad():
        plain = model(x)
        if float(apart(plain, logits).max()) > ROUNDING and float(apart(plain, model(x)).max()) <= ROUNDING:
            raise ConfigError(
                f"gradcam: the model answers otherwise while {name} is watched, because it changes the "
                "layer's output in place under another name; name another layer"
            )


def _guided(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(n, C, H, W) the gradient of the class's logit, where every ReLU sets negative gradients to 0.

    The ReLUs are found in the graph of the forward pass, which is the model's own. Raises
    ConfigError if there is none, or a step that may hide one.
    """
    point = x.detach().requires_grad_()
    with torch.enable_grad(), without_compiling():
        total = score(model(point), y, "logit").sum()
        steps = list(nodes(total))
        for found, what in _HIDING:
            if names := sorted({node.name() for node in steps if found(node)}):
                raise ConfigError(f"gradcam: guided cannot tell the ReLUs of this model: {what} ({names[0]})")
        relus = [node for node in steps if is_relu(node)]
        if not relus:
            raise ConfigError("gradcam: guided needs a ReLU, and the model computes none; leave it out")
        for node in relus:
            node.register_prehook(_positive)
        return _gradient(total, point).nan_to_num(0, 0, 0)


_HIDING: tuple[tuple[Callable[[Node], bool], str], ...] = (
    (is_opaque, "a part is computed as one step, such as a custom autograd function or a checkpoint"),
    (is_mask, "a step chooses numbers by a mask; if it is a ReLU, write it as relu"),
)


def _positive(slopes: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(None if slope is None else slope.relu() for slope in slopes)
