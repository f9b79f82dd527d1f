"""What a model computes on the way: hooks, modes, the outputs of its layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, closest
from stresslens.core.types import Shape


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the duration; each module's own mode comes back, also after an exception."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
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
    """Calls `hook(name, module, inputs, output)` after each forward pass of the `chosen` modules,
    by default of the leaves; the hooks always come off."""
    leaves = ((name, module) for name, module in model.named_modules() if not any(module.children()))
    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: hook(name, m, i, o))
        for name, module in (leaves if chosen is None else chosen)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_layer(model: nn.Module, shape: Shape) -> tuple[str, ...]:
    """The names, within the net, of the parameters of the layer that gives the logits; none where
    no layer does by itself."""
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
    if output.ndim == 3 or output.shape[:2] != logits.shape:  # tokens are no logits
        return ()
    return tuple(f"{name}.{parameter}" for parameter, _ in module.named_parameters())


@contextmanager
def tapped(model: nn.Module, names: Sequence[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """A dictionary that fills, in the order of a forward pass, with the outputs of these submodules
    (of all but the model itself without names) that are tensors; of one that runs several times the
    last. The hooks always come off."""
    found: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, tuple) and output:
            output = output[0]
        if isinstance(output, Tensor):
            found.pop(name, None)
            found[name] = output

    every = model.named_modules(remove_duplicate=False)
    with hooked(
        model, keep, [(name, module) for name, module in every if name and (names is None or name in names)]
    ):
        yield found


def grid(output: Tensor, module: nn.Module, images: Tensor) -> Tensor | None:
    """A layer's output as (N, C, h, w), laid out like the images (N, ·, H, W) it was computed from;
    None where it is not.

    Convolutions give that shape. Tokens (N, T, C), after what stands in front of them (a class
    token), are read row by row on the grid with the images' proportions; (N, h, w, C) behind a
    layer normalisation of C has its channels brought forward.
    """
    n, sides = len(images), images.shape[2:]
    if output.ndim == 4 and len(output) == n:
        last = isinstance(module, nn.LayerNorm | nn.Linear) and _width(module) == output.shape[3]
        laid = output.permute(0, 3, 1, 2) if last else output
        return laid if min(laid.shape[2:]) > 1 else None
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
    """The names of the layers that are laid out like the images, in the order in which they run,
    with their (C, h, w)."""
    modules = dict(model.named_modules(remove_duplicate=False))
    with torch.no_grad(), tapped(model) as outputs:
        model(x[:1])
    grids = {name: grid(output, modules[name], x[:1]) for name, output in outputs.items()}
    return {name: tuple(each.shape[1:]) for name, each in grids.items() if each is not None}


def layer_to_explain(model: nn.Module, x: Tensor, name: str = "auto") -> str:
    """The layer whose output tells where the model looks: the last convolution, or in a transformer
    the last tokens, whose every place still has a say in the logits (behind the last attention only
    the class token has). `name` is checked instead if given.

    Raises ConfigError with the valid names.
    """
    found = spatial(model, x)
    if name != "auto":
        if name not in found:
            inner = [each for each in found if each not in ("normalize", "resize")]
            raise ConfigError(
                f"the model has no layer {name!r} laid out like the image; {closest(name, inner)}"
            )
        return name
    modules = dict(model.named_modules(remove_duplicate=False))
    usual = [each for each in found if isinstance(modules[each], nn.Conv2d | nn.LayerNorm)]
    own = [each for each in found if any(True for _ in modules[each].parameters(recurse=False))]
    for each in reversed(usual or own):
        if _reaches(model, x[:1], each, modules[each]):
            return each
    raise ConfigError(
        "the model has no layer that is laid out like the image and that the logits depend on; name one (layer: …)"
    )


def _reaches(model: nn.Module, x: Tensor, name: str, module: nn.Module) -> bool:
    """Whether the gradient of the logits reaches more than one place of this layer."""
    with torch.enable_grad(), tapped(model, [name]) as outputs:
        logits = model(x.detach().requires_grad_())
        output = outputs[name]
        if not output.requires_grad:
            return False
        top = logits.max(1).values.sum()
        (slope,) = torch.autograd.grad(top, output, allow_unused=True)
    laid = None if slope is None else grid(slope, module, x)
    return laid is not None and int((laid.abs().amax(1) > 0).sum()) > 1


def feature_layer(model: nn.Module, shape: Shape) -> tuple[nn.Module, int]:
    """The linear layer that runs last, whose inputs are the features, or the model itself, whose
    logits are; and their number."""
    last: list[tuple[nn.Module, int]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear) and len(inputs[0]) == 2:
            last[:] = [(module, module.in_features)]

    first = next(model.parameters(), torch.empty(0))
    images = torch.zeros(2, *shape, device=first.device, dtype=first.dtype)
    with evaluating(model), torch.no_grad():
        model(
            images
        )  # what is computed once and kept, such as the features of two captions, is none of two images
        with hooked(model, note):
            logits = model(images)
    return last[0] if last else (model, logits.shape[1])


def features(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor:
    """(N, D) what `feature_layer` was shown: of several tokens an image, their mean."""
    values: Tensor = inputs[0] if isinstance(module, nn.Linear) else output
    return values.flatten(1, -2).mean(1) if values.ndim > 2 else values


def features_of(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) the last features of images x (N, C, H, W), and (N, K) their logits."""
    layer, _ = feature_layer(model, (x.shape[1], x.shape[2], x.shape[3]))
    with torch.no_grad():
        logits, found = with_features(model, layer, x)
    return found, logits


def with_features(model: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) logits of images x, and (N, D) the features that the `layer` of `feature_layer` was
    shown, from one pass."""
    found: list[Tensor] = []
    with hooked(model, lambda _, *seen: found.append(features(*seen)), [("", layer)]):
        logits: Tensor = model(x)
    return logits, found[-1].float()
