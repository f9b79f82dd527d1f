"""Model inspection with forward hooks: layer outputs, activations, features, spatial layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest
from stresslens.core.types import Shape


def fresh_images(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A forward pre-hook: the module gets copies of its inputs, so that one that works in place does
    not write into the images of its caller."""
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)


def is_plain(module: nn.Module) -> bool:
    """Whether a call of the module runs the forward method of its class, and no hook but
    `fresh_images`."""
    return not (
        module._forward_hooks
        or any(hook is not fresh_images for hook in module._forward_pre_hooks.values())
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
        or nn.modules.module._has_any_global_hook()
    )


@contextmanager
def on_fresh_images(model: nn.Module) -> Iterator[None]:
    """The model gets copies of its images inside the context (`fresh_images`)."""
    if fresh_images in model._forward_pre_hooks.values():
        yield
        return
    handle = nn.Module.register_forward_pre_hook(model, fresh_images, prepend=True)  # TorchScript's refuses
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the context, on copies of the images (`fresh_images`); each module's
    mode is restored, also after an exception."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with on_fresh_images(model):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def hooked(
    model: nn.Module,
    hook: Callable[[str, nn.Module, tuple[Any, ...], Any], None],
    chosen: Iterable[tuple[str, nn.Module]] | None = None,
) -> Iterator[None]:
    """Calls `hook(name, module, inputs, output)` after each forward pass of the `chosen` modules.

    By default these are the leaf modules. The hooks are always removed at the end.
    """
    leaves = ((name, module) for name, module in model.named_modules() if not any(module.children()))
    handles = [
        nn.Module.register_forward_hook(module, lambda m, i, o, name=name: hook(name, m, i, o))
        for name, module in (leaves if chosen is None else chosen)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_layer(model: nn.Module, shape: Shape) -> tuple[str, ...]:
    """The names within the net of the parameters of the layer whose outputs are the logits.

    Empty if there is no such layer.
    """
    last: list[tuple[str, nn.Module, Tensor]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            last[:] = [(name.removeprefix("net."), module, output)]

    first = next(model.parameters(), torch.empty(0))
    with evaluating(model), torch.no_grad(), hooked(model, note):
        logits = model(torch.zeros(2, *shape, device=first.device, dtype=first.dtype))
    if not last:
        return ()
    name, module, output = last[0]
    if output.ndim == 3 or output.shape[:2] != logits.shape:  # tokens, not logits
        return ()
    return tuple(f"{name}.{parameter}" for parameter, _ in module.named_parameters())


@contextmanager
def tapped(model: nn.Module, names: Sequence[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """A dictionary that a forward pass fills with the outputs of submodules, in running order.

    Without `names` these are all submodules, except the model itself. Only tensor outputs are kept;
    of a submodule that runs several times, the last one. The hooks are always removed at the end.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple) and output:
            output = output[0]
        if isinstance(output, Tensor):
            outputs.pop(name, None)
            outputs[name] = output

    modules = model.named_modules(remove_duplicate=False)
    chosen = [(name, module) for name, module in modules if name and (names is None or name in names)]
    with hooked(model, keep, chosen):
        yield outputs


def grid(output: Tensor, module: nn.Module, images: Tensor) -> Tensor | None:
    """A layer's output as (N, C, h, w), spatially aligned with the images (N, ·, H, W); or None.

    Convolutions have this shape. Tokens (N, T, C), without up to five extra tokens in front of them
    (a class token), are placed row by row on a grid with the images' proportions. The output (N, h,
    w, C) of a layer normalisation or a linear layer over C is permuted. None if the output has no
    spatial layout.
    """
    n, sides = len(images), images.shape[2:]
    if output.ndim == 4 and len(output) == n:
        last = isinstance(module, nn.LayerNorm | nn.Linear) and _width(module) == output.shape[3]
        permuted = output.permute(0, 3, 1, 2) if last else output
        return permuted if min(permuted.shape[2:]) > 1 else None
    if output.ndim == 3 and len(output) == n:
        for extra in range(min(6, output.shape[1])):
            rows = math.sqrt((output.shape[1] - extra) * sides[0] / sides[1])
            columns = (output.shape[1] - extra) / rows if rows else 0.0
            if rows > 1 and columns > 1 and abs(rows - round(rows)) + abs(columns - round(columns)) < 1e-9:
                return output[:, extra:].transpose(1, 2).reshape(n, -1, round(rows), round(columns))
    return None


def _width(module: nn.Module) -> int:
    return int(module.normalized_shape[-1]) if isinstance(module, nn.LayerNorm) else int(module.out_features)  # type: ignore[arg-type]


def spatial(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The names of the layers with a spatial layout (see `grid`), in running order, and (C, h,
    w)."""
    modules = dict(model.named_modules(remove_duplicate=False))
    with torch.no_grad(), tapped(model) as outputs:
        model(x[:1])
    grids = {name: grid(output, modules[name], x[:1]) for name, output in outputs.items()}
    return {name: tuple(values.shape[1:]) for name, values in grids.items() if values is not None}


def layer_to_explain(model: nn.Module, x: Tensor, name: str = "auto") -> str:
    """The layer whose output an explainer such as Grad-CAM uses.

    It is the last convolution, or in a transformer the last tokens, for which the logits depend on
    more than one position. (Behind the last attention they depend on the class token alone.) If
    `name` is given, it is checked and returned. Raises ConfigError with the valid names.
    """
    layers = spatial(model, x)
    if name != "auto":
        if name not in layers:
            inner = [layer for layer in layers if layer not in ("normalize", "resize")]
            raise ConfigError(
                f"the model has no layer {name!r} laid out like the image; {closest(name, inner)}"
            )
        return name
    modules = dict(model.named_modules(remove_duplicate=False))
    usual = [layer for layer in layers if isinstance(modules[layer], nn.Conv2d | nn.LayerNorm)]
    with_parameters = [
        layer for layer in layers if any(True for _ in modules[layer].parameters(recurse=False))
    ]
    for layer in reversed(usual or with_parameters):
        if _gradient_reaches(model, x[:1], layer, modules[layer]):
            return layer
    raise ConfigError(
        "the model has no layer that is laid out like the image and that the logits depend on; "
        "name one (layer: …)"
    )


def _gradient_reaches(model: nn.Module, x: Tensor, name: str, module: nn.Module) -> bool:
    """Whether the gradient of the highest logit is non-zero at more than one position of this
    layer."""
    with torch.enable_grad(), tapped(model, [name]) as outputs:
        logits = model(x.detach().requires_grad_())
        output = outputs[name]
        if not output.requires_grad:
            return False
        top = logits.max(1).values.sum()
        (slope,) = torch.autograd.grad(top, output, allow_unused=True)
    spatial_slope = None if slope is None else grid(slope, module, x)
    return spatial_slope is not None and int((spatial_slope.abs().amax(1) > 0).sum()) > 1


def feature_layer(model: nn.Module, shape: Shape) -> tuple[nn.Module, int]:
    """The layer that gives the features, and their number.

    It is the linear layer that runs last, whose inputs are the features. Without a linear layer it
    is the model itself, whose logits are the features.
    """
    last: list[tuple[nn.Module, int]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear) and len(inputs[0]) == 2:
            last[:] = [(module, module.in_features)]

    first = next(model.parameters(), torch.empty(0))
    images = torch.zeros(2, *shape, device=first.device, dtype=first.dtype)
    with evaluating(model), torch.no_grad():
        # A first pass computes what models cache, such as the features of captions: not of images.
        model(images)
        with hooked(model, note):
            logits = model(images)
    return last[0] if last else (model, logits.shape[1])


def features(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """(N, D) features from a pass of the layer of `feature_layer`; of several tokens, their
    mean."""
    values: Tensor = inputs[0] if isinstance(module, nn.Linear) else output
    return values.flatten(1, -2).mean(1) if values.ndim > 2 else values


def features_of(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) the last features of images x (N, C, H, W), and (N, K) their logits."""
    layer, _ = feature_layer(model, (x.shape[1], x.shape[2], x.shape[3]))
    with torch.no_grad():
        logits, values = with_features(model, layer, x)
    return values, logits


def with_features(model: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) logits of images x, and (N, D) features, from one pass; `layer` is that of
    `feature_layer`."""
    collected: list[Tensor] = []
    with hooked(model, lambda _, *call: collected.append(features(*call)), [("", layer)]):
        logits: Tensor = model(x)
    return logits, collected[-1].float()
