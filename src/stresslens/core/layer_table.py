"""Layer table of a network: output shapes, parameters, neurons, multiply-adds, memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stresslens.core.inspection import evaluating, hooked
from stresslens.core.types import Shape


@dataclass(frozen=True)
class Layer:
    """One call of a leaf module on one image.

    `neurons` is the number of outputs of a convolution or a linear layer, and 0 for others.
    """

    name: str
    type: str
    kind: Literal["conv", "linear", "norm", "other"]
    output: tuple[int, ...]
    parameters: int
    trainable: int
    neurons: int
    multiply_adds: int


@dataclass(frozen=True)
class LayerTable:
    """All layers of a net for one image.

    Megabytes are of float32; activations count twice (forward and backward).
    """

    layers: tuple[Layer, ...]
    parameters: int
    trainable: int
    input_megabytes: float
    activation_megabytes: float
    parameter_megabytes: float

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
        return asdict(self) | sums | {"by_kind": self.by_kind()}


def layer_table(net: nn.Module, shape: Shape) -> LayerTable:
    """The layer table of `net`, from one pass in evaluation mode on one image.

    `shape` is (channels, height, width).
    """
    rows: list[Layer] = []
    stored = 0
    seen: set[nn.Module] = set()

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal stored
        parameters = [] if module in seen else list(module.parameters(recurse=False))
        seen.add(module)
        kind = _kind(module)
        outputs = output.numel() if isinstance(output, Tensor) else 0
        counted = outputs if kind in ("conv", "linear") else 0
        view = isinstance(output, Tensor) and any(
            isinstance(x, Tensor) and x.data_ptr() == output.data_ptr() for x in inputs
        )
        stored += 0 if view else outputs
        size = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        total = sum(p.numel() for p in parameters)
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        operations = _multiply_adds_per_output(module) * counted
        rows.append(Layer(name, type(module).__name__, kind, size, total, trainable, counted, operations))

    first = next(net.parameters(), torch.empty(0))
    with evaluating(net), torch.no_grad(), hooked(net, record):
        net(torch.zeros(1, *shape, dtype=first.dtype, device=first.device))
    total = sum(p.numel() for p in net.parameters())
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    mebibyte = 4 / 2**20
    pixels = shape[0] * shape[1] * shape[2]
    return LayerTable(
        tuple(rows), total, trainable, pixels * mebibyte, 2 * stored * mebibyte, total * mebibyte
    )


def _kind(module: nn.Module) -> Literal["conv", "linear", "norm", "other"]:
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    if isinstance(module, nn.Linear):
        return "linear"
    if "Norm" in type(module).__name__:
        return "norm"
    return "other"


def _multiply_adds_per_output(module: nn.Module) -> int:
    """Multiply-adds for each output of a convolution or a linear layer."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.weight[0].numel()
    return module.in_features if isinstance(module, nn.Linear) else 0
