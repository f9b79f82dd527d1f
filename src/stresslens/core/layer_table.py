"""Layer table of a network: output shapes, parameters, neurons, multiply-adds, memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stresslens.core.cards import card
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError, first_line
from stresslens.core.inspection import evaluating, hooked
from stresslens.core.tables import ResultTable, RowTable
from stresslens.core.text import counted
from stresslens.core.torch_compiler import without_compiler
from stresslens.core.types import Shape


@dataclass(frozen=True)
class Layer:
    """One call of a module on one image, without the modules inside it.

    A module that contains others has a row if it has parameters of its own (position embeddings) or
    multiplies matrices itself (the scores and values of attention). `output` is without the
    dimension of the images; it is empty for a module whose parameters are used by another one.
    `neurons` is the number of outputs of a convolution or a linear layer, and 0 for others.
    `multiply_adds` counts the convolutions and matrix products that really run.
    """

    name: str
    type: str
    kind: Literal["conv", "linear", "norm", "other"]
    output: tuple[int, ...]
    parameters: int
    trainable: int
    neurons: int
    multiply_adds: int


@dataclass(frozen=True, repr=False)
class LayerTable(RowTable):
    """All layers of a net for one image. The rows add up to the totals.

    Megabytes are of float32. Activations are the outputs of the innermost modules; they count twice
    (forward and backward). `with_attention`: whether the multiply-adds include those of attention's
    scores and values, which versions before 0.3.0 left out.
    """

    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    input_megabytes: float
    activation_megabytes: float
    parameter_megabytes: float
    with_attention: bool = False

    def __repr__(self) -> str:
        return f"LayerTable({self._said})"

    def _repr_html_(self) -> str:
        return card(self._said, self._table().html())

    @property
    def _said(self) -> str:
        return (
            f"{counted(len(self.layers), 'layer')}, {self.parameters:,} parameters "
            f"({self.trainable:,} trainable), "
            f"{self.multiply_adds:,} multiply-adds an image, {self.megabytes:.3g} MB"
        )

    def _table(self) -> ResultTable:
        columns = ("layer", "type", "output", "parameters", "neurons", "multiply-adds")
        cells = [
            (
                *(layer.name or "(the net itself)", layer.type),
                " × ".join(map(str, layer.output)),
                *(layer.parameters, layer.neurons, layer.multiply_adds),
            )
            for layer in self.layers
        ]
        return ResultTable(columns, cells)

    @property
    def neurons(self) -> int:
        return sum(layer.neurons for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def megabytes(self) -> float:
        return self.input_megabytes + self.activation_megabytes + self.parameter_megabytes

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Parameters and neurons of each kind of layer that has any."""
        totals: dict[str, dict[str, int]] = {}
        for layer in self.layers:
            if layer.parameters or layer.neurons:
                kind = totals.setdefault(layer.kind, {"parameters": 0, "neurons": 0})
                kind["parameters"] += layer.parameters
                kind["neurons"] += layer.neurons
        return totals

    def as_json(self) -> dict[str, Any]:
        sums = {"neurons": self.neurons, "multiply_adds": self.multiply_adds, "megabytes": self.megabytes}
        values = asdict(self) | sums | {"by_kind": self.by_kind()}
        return values if self.with_attention else {k: v for k, v in values.items() if k != "with_attention"}


def layer_table(net: nn.Module, shape: Shape) -> LayerTable:
    """The layer table of `net`, from a pass in evaluation mode on one image, or on two where the net
    cannot take one alone.

    `shape` is (channels, height, width). Raises ConfigError where the net cannot take images of this
    shape.
    """
    try:
        return _table(net, shape, 1)
    except (RuntimeError, ValueError, IndexError, AssertionError):  # batch norm with a batch's statistics
        try:
            return _table(net, shape, 2)
        except Exception as error:  # a user's module may raise anything
            name = type(net).__name__
            raise ConfigError(
                f"{name} cannot take images of shape {tuple(shape)}: {first_line(error)}"
            ) from error


# long: the hooks share the rows and the count
def _table(net: nn.Module, shape: Shape, images: int) -> LayerTable:
    rows: list[Layer] = []
    stored = 0
    seen: set[nn.Parameter] = set()
    counter = _MultiplyAdds()

    def row(name: str, module: nn.Module, output: Any, multiply_adds: int) -> Layer:
        parameters = [p for p in module.parameters(recurse=False) if p not in seen]
        seen.update(parameters)
        size: tuple[int, ...] = tuple(output.shape) if isinstance(output, Tensor) else ()
        kind = _kind(module)
        total = sum(p.numel() for p in parameters)
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        neurons = output.numel() // images if size and kind in ("conv", "linear") else 0
        shown = size[1:] if size[:1] == (images,) else size
        operations = multiply_adds // images
        return Layer(name, type(module).__name__, kind, shown, total, trainable, neurons, operations)

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal stored
        operations = counter.leave()
        output = output[0] if isinstance(output, tuple) and output else output
        if any(module.children()):
            if operations or any(p not in seen for p in module.parameters(recurse=False)):
                rows.append(row(name, module, output, operations))
            return
        view = isinstance(output, Tensor) and any(
            isinstance(x, Tensor) and x.data_ptr() == output.data_ptr() for x in inputs
        )
        stored += output.numel() if isinstance(output, Tensor) and not view else 0
        rows.append(row(name, module, output, operations))

    image = as_input(torch.zeros(images, *shape), net)
    everything = [(n, m) for n, m in net.named_modules() if not isinstance(m, torch.jit.ScriptModule)]
    with evaluating(net), torch.no_grad(), _unfused():
        net(image)  # computes what models cache, such as the features of captions: not of images
        entering = [module.register_forward_pre_hook(counter.enter) for _, module in everything]
        try:
            with without_compiler(counter.__torch_dispatch__), hooked(net, record, everything), counter:
                output = net(image)
        finally:
            for handle in entering:
                handle.remove()
    if isinstance(net, torch.jit.ScriptModule):
        rows.append(row("", net, output, counter.leave()))
    for name, module in net.named_modules():
        if any(p not in seen for p in module.parameters(recurse=False)):
            rows.append(row(name, module, None, 0))
    total = sum(p.numel() for p in net.parameters())
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    mebibyte = 4 / 2**20
    pixels = shape[0] * shape[1] * shape[2]
    return LayerTable(
        tuple(rows),
        total,
        trainable,
        pixels * mebibyte,
        2 * stored // images * mebibyte,
        total * mebibyte,
        True,
    )


_counted: weakref.WeakKeyDictionary[nn.Module, dict[Shape, int]] = weakref.WeakKeyDictionary()


def multiply_adds_of(model: nn.Module, shape: Shape) -> int:
    """The multiply-adds of one image of a shape (channels, height, width), counted once for each
    model. 0 for a model that cannot be counted."""
    known = _counted.setdefault(model, {})
    if shape not in known:
        try:
            known[shape] = layer_table(model, shape).multiply_adds
        except Exception:  # a user's module may raise anything
            known[shape] = 0
    return known[shape]


class _MultiplyAdds(TorchDispatchMode):
    """Counts the multiply-adds of each running module with the formulas of torch's flop counter."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.running = [0]

    def enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.running.append(0)

    def leave(self) -> int:
        """The count of the module that ends, without those of the modules inside it."""
        return self.running.pop()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = operation(*args, **(kwargs or {}))
        formula = flop_registry.get(operation.overloadpacket)
        if formula is not None:
            self.running[-1] += formula(*args, **(kwargs or {}), out_val=output) // 2
        return output


@contextmanager
def _unfused() -> Iterator[None]:
    """Attention as plain matrix products: torch's counter does not know all its fused kernels."""
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fast)


def _kind(module: nn.Module) -> Literal["conv", "linear", "norm", "other"]:
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    if isinstance(module, nn.Linear):
        return "linear"
    if "Norm" in type(module).__name__:
        return "norm"
    return "other"
