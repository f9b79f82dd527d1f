"""Model inspection with forward hooks: layer outputs, activations, features, spatial layers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.core.center_crop import seen_part
from stresslens.core.dtypes import as_input
from stresslens.core.ensembles import ensemble_in
from stresslens.core.errors import ConfigError
from stresslens.core.gradient_graph import is_relu, nodes
from stresslens.core.spelling import closest
from stresslens.core.types import Shape


def fresh_images(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A forward pre-hook: the module gets copies of its inputs, so that one that works in place does
    not write into the images of its caller."""
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)


GLOBAL_HOOKS = ("forward", "forward_pre", "backward", "backward_pre")


def is_plain(module: nn.Module) -> bool:
    """Whether a call of the module runs the forward method of its class, and no hook but
    `fresh_images`."""
    return not (
        module._forward_hooks
        or any(hook is not fresh_images for hook in module._forward_pre_hooks.values())
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in vars(module)
        or has_global_hooks()
    )


def has_global_hooks() -> bool:
    """Whether hooks were registered for every module there is."""
    kept = vars(nn.modules.module)
    return any(kept[f"_global_{when}_hooks"] for when in GLOBAL_HOOKS)


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


def to_evaluation_mode(model: nn.Module) -> None:
    """Calls eval(). A program of torch.export has no modes, and stays as it was exported."""
    with suppress(NotImplementedError):
        model.eval()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the context, on copies of the images (`fresh_images`); each module's
    mode is restored, also after an exception."""
    modes = {module: module.training for module in model.modules()}
    to_evaluation_mode(model)
    try:
        with on_fresh_images(model):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def without_compiling() -> Iterator[None]:
    """Modules compiled by torch.compile run as they were written, and stay as they are."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and the import takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def hooked(
    model: nn.Module,
    hook: Callable[[str, nn.Module, tuple[Any, ...], Any], Any],
    chosen: Iterable[tuple[str, nn.Module]] | None = None,
) -> Iterator[None]:
    """Calls `hook(name, module, inputs, output)` after each forward pass of the `chosen` modules.

    What it returns, unless None, takes the place of the output. By default these are the leaf
    modules. Scripted modules cannot be seen and are left out. Compiled modules run uncompiled
    meanwhile. The hooks are always removed at the end.
    """
    leaves = ((name, module) for name, module in model.named_modules() if not any(module.children()))
    handles = [
        nn.Module.register_forward_hook(module, lambda m, i, o, name=name: hook(name, m, i, o))
        for name, module in (leaves if chosen is None else chosen)
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        with without_compiling():
            yield
    finally:
        for handle in handles:
            handle.remove()


def classifier_layers(model: nn.Module, shape: Shape) -> tuple[str, ...]:
    """The names within the net of the parameters of the layers whose outputs are the logits: the last
    layer, or several where the logits are a mean or a sum of several heads.

    Empty if there is no such layer.
    """
    ran: list[tuple[str, nn.Module, Tensor]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            ran.append((name.removeprefix("net."), module, output))

    images = as_input(torch.zeros(2, *shape), model)
    with evaluating(model), torch.no_grad(), hooked(model, note):
        logits = model(images)
    if not ran:
        return ()
    classes = logits.shape[1]
    layers = {name: module for name, module, _ in ran if _width(module) == classes}
    name, module, output = ran[-1]
    heads = {name: module} if output.ndim != 3 and output.shape[:2] == logits.shape else {}  # not tokens
    if layers.keys() - heads:
        ran.clear()
        with evaluating(model), torch.enable_grad(), hooked(model, note):
            logits = model(_noise(images, 2).requires_grad_())
            outputs = [output for *_, output in ran]
            slopes = {
                k: torch.autograd.grad(logits[:, k].sum(), outputs, allow_unused=True, retain_graph=True)
                for k in (0, classes - 1)
            }
        heads |= {
            name: module
            for place, (name, module, _) in enumerate(ran)
            if name in layers and all(_of_class_alone(slopes[k][place], module, k) for k in slopes)
        }
    parameters = [
        (name, parameter) for name, head in heads.items() for parameter, _ in head.named_parameters()
    ]
    return tuple(".".join(names) for names in parameters)


def _of_class_alone(slope: Tensor | None, module: nn.Module, k: int) -> bool:
    """Whether the logit of class k depends on the output of a layer for that class alone, by its
    slope."""
    if slope is None:
        return False
    by_class = slope.abs().movedim(1 if isinstance(module, nn.Conv2d) else -1, 0).flatten(1).amax(1)
    return bool(by_class[k] > 0) and int((by_class > 0).sum()) == 1


@contextmanager
def tapped(model: nn.Module, names: Sequence[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """A dictionary that a forward pass fills with the outputs of submodules, in running order.

    Without `names` these are all submodules, except the model itself. Only tensor outputs are kept;
    of a submodule that runs several times, the last one. The model goes on with a copy, so that a
    step that works in place does not change what is kept. The gradient passes through the kept
    outputs. The hooks are always removed at the end.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if type(output) is tuple and output else output
        if not isinstance(first, Tensor):
            return None
        outputs.pop(name, None)
        outputs[name] = first.clone()
        copied = outputs[name].clone()
        return (copied, *output[1:]) if type(output) is tuple else copied

    modules = model.named_modules(remove_duplicate=False)
    chosen = [(name, module) for name, module in modules if name and (names is None or name in names)]
    with hooked(model, keep, chosen):
        yield outputs


@dataclass(frozen=True)
class Layout:
    """How a layer's output lies on the image. `axes` brings it to (N, C, h, w) or (N, T, C)."""

    axes: tuple[int, ...]
    sides: tuple[int, int]
    """h and w."""
    extra: int = 0
    """The number of tokens in front of those of the grid, such as a class token."""

    def grid(self, output: Tensor) -> Tensor:
        """The output (any shape that the layer gives) as (N, C, h, w)."""
        values = output.permute(self.axes)
        if values.ndim == 4:
            return values
        grid: Tensor = values[:, self.extra :].transpose(1, 2).unflatten(2, self.sides)
        return grid


def spatial(model: nn.Module, x: Tensor) -> dict[str, Layout]:
    """The layers whose outputs lie on the images x (N, C, H, W), in running order, and how.

    This depends on the shape of the images, not on their values: noise passes through the model,
    two images and then three, which shows the axis of the images. Raises ConfigError for a scripted
    model, whose layers cannot be seen.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(
            "the model is scripted (torch.jit), and its layers cannot be seen; "
            "give the module that it was made from"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    shapes = [_output_shapes(model, _noise(x, count)) for count in (2, 3)]
    sides = seen_part(model, (x.shape[2], x.shape[3])).sides
    layouts = {
        name: layout_of(shape, shapes[1].get(name, ()), sides, modules[name])
        for name, shape in shapes[0].items()
    }
    return {name: layout for name, layout in layouts.items() if layout is not None}


def _noise(x: Tensor, count: int) -> Tensor:
    """(count, C, H, W) noise in [0, 1], the same for all images of this shape."""
    draws = torch.Generator().manual_seed(0)
    return torch.rand(count, *x.shape[1:], generator=draws).to(x)


def _output_shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        first = output[0] if type(output) is tuple and output else output
        if isinstance(first, Tensor):
            shapes.pop(name, None)
            shapes[name] = tuple(first.shape)

    chosen = [(name, module) for name, module in model.named_modules(remove_duplicate=False) if name]
    with torch.no_grad(), hooked(model, note, chosen):
        model(x)
    return shapes


def layout_of(
    two: tuple[int, ...], three: tuple[int, ...], sides: tuple[int, int], module: nn.Module | None = None
) -> Layout | None:
    """The layout of a layer on images with these sides (H, W), from the shapes that it gives for
    two and for three images. None if its output does not lie on the image.

    Convolutions give (N, C, h, w), others (N, h, w, C): the axes with the image's proportions are
    the sides. Tokens (N, T, C), or (T, N, C), lie row by row on a grid with the image's
    proportions, behind up to five extra tokens.
    """
    by_images = [axis for axis, (a, b) in enumerate(zip(two, three)) if (a, b) == (2, 3)]
    if len(two) == 4 and by_images[:1] == [0] and min(two) > 0:
        orders = [(0, 1, 2, 3), (0, 3, 1, 2)]
        if isinstance(module, nn.LayerNorm | nn.Linear) and two[3] == _width(module):
            orders = orders[1:]
        elif isinstance(module, nn.Conv2d):
            orders = orders[:1]
        axes = min(
            orders, key=lambda order: abs(math.log(two[order[2]] * sides[1] / two[order[3]] / sides[0]))
        )
        high, wide = two[axes[2]], two[axes[3]]
        return Layout(axes, (high, wide)) if min(high, wide) > 1 else None
    if len(two) == 3 and by_images[:1] in ([0], [1]):
        tokens = two[1 - by_images[0]]
        for extra in range(min(6, tokens)):
            rows = math.sqrt((tokens - extra) * sides[0] / sides[1])
            columns = (tokens - extra) / rows
            if rows > 1 and columns > 1 and abs(rows - round(rows)) + abs(columns - round(columns)) < 1e-9:
                order = (by_images[0], 1 - by_images[0], 2)
                return Layout(order, (round(rows), round(columns)), extra)
    return None


def _width(module: nn.Module) -> int:
    """The number of a layer's outputs at each position."""
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    return module.out_channels if isinstance(module, nn.Conv2d) else int(module.out_features)  # type: ignore[arg-type]


def layer_to_explain(model: nn.Module, x: Tensor, name: str = "auto") -> str:
    """The layer whose output an explainer such as Grad-CAM uses for images like x (N, C, H, W).

    It is the last convolution, or in a transformer the last tokens, for which the logits depend on
    more than one position. (Behind the last attention they depend on the class token alone.) This
    is a matter of the model: the values of x do not count. If `name` is given, it is checked and
    returned. Raises ConfigError with the valid names.
    """
    layers = spatial(model, x)
    if name != "auto":
        if name not in layers:
            inner = [layer for layer in layers if layer not in ("normalize", "resize", "crop")]
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
        if _is_read(model, _noise(x, 2), layer, layers[layer]):
            return layer
    raise ConfigError(
        "the model has no layer that is laid out like the image and that the logits depend on; "
        "name one (layer: …)"
    )


def _is_read(model: nn.Module, x: Tensor, name: str, layout: Layout) -> bool:
    """Whether the logits depend on more than one position of this layer. ReLUs let every gradient
    pass here, so that it does not depend on what x holds."""
    with torch.enable_grad(), tapped(model, [name]) as outputs:
        logits = model(x.detach().requires_grad_())
        output = outputs[name]
        if not output.requires_grad or not logits.requires_grad:
            return False
        weights = torch.rand(logits.shape[1:], generator=torch.Generator().manual_seed(0)).to(logits)
        total = (logits * (0.5 + weights)).sum()
        for node in nodes(total):
            if is_relu(node):
                node.register_hook(
                    lambda passed, given: tuple(given[0] if s is not None else s for s in passed)
                )
        (slope,) = torch.autograd.grad(total, output, allow_unused=True)
    return slope is not None and int((layout.grid(slope).abs().amax((0, 1)) > 0).sum()) > 1


def feature_layer(model: nn.Module, shape: Shape) -> tuple[nn.Module, int]:
    """The layer that gives the features, and their number.

    It is the linear layer that runs last, whose inputs are the features. Without a linear layer it
    is the model itself, whose logits are the features. Those of an ensemble are the logits of all its
    members.
    """
    last: list[tuple[nn.Module, int]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear) and len(inputs[0]) == 2:
            last[:] = [(module, module.in_features)]

    images = as_input(torch.zeros(2, *shape), model)
    with evaluating(model), torch.no_grad():
        # A first pass computes what models cache, such as the features of captions: not of images.
        model(images)
        with hooked(model, note):
            logits = model(images)
    if (ensemble := ensemble_in(model)) is not None:
        return ensemble.joint, logits.shape[1] * len(ensemble.members)
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
    with hooked(model, lambda _, *call: collected.append(features(*call).clone()), [("", layer)]):
        logits: Tensor = model(x)
    return logits, collected[-1].float()
