"""Parts of a network against their reference: a convolution, a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor, nn

from stresslens.config.registry import Bound
from stresslens.core.types import Count, Finding
from stresslens.labs.agreement import differs, equal, remark, unlike, verdict

INPUTS = ("x", "weight", "bias")
WORDS = (*INPUTS, "stride", "padding")


@dataclass(frozen=True)
class _Case:
    kernel: tuple[int, int]
    stride: Any
    padding: Any
    bias: bool

    def __str__(self) -> str:
        height, width = self.kernel
        bias = "with" if self.bias else "without"
        return f"kernel {height}×{width}, stride {self.stride}, padding {self.padding}, {bias} bias"

    def tensors(self) -> dict[str, Tensor | None]:
        """x (2, 3, 9, 11), weight (4, 3, h, w), bias (4,), in float64."""
        draw = torch.Generator().manual_seed(1)
        shapes = {"x": (2, 3, 9, 11), "weight": (4, 3, *self.kernel), "bias": (4,)}
        drawn = {
            name: torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()
            for name, shape in shapes.items()
        }
        return {**drawn, "bias": drawn["bias"] if self.bias else None}


CASES = [
    _Case(kernel, stride, padding, bias)
    for kernel, stride, padding, bias in product(
        [(1, 1), (3, 3), (2, 3)], [1, 2, 3], [0, 1, 2], [True, False]
    )
]
PAIRS = [_Case((3, 2), (2, 1), (1, 0), True), _Case((3, 3), (1, 3), (0, 2), True)]


def check_convolution(function: Callable[..., Any], reference: Bound | None) -> list[Finding]:
    """A convolution, `(x, weight, bias, stride, padding)` or a class like `nn.Conv2d`, against torch's:
    the output and the three gradients in float64, over kernels, strides, paddings, with and without
    bias; and the memory that it keeps for the backward pass. `reference` is not used."""
    call = _called(function)
    if isinstance(call, str):
        return [differs("signature", call, 0, f"write def convolution({', '.join(WORDS)}):")]
    compared = [_compared(call, case) for case in CASES]
    findings = []
    for what in ("output", "gradient of x", "gradient of weight", "gradient of bias"):
        counted = [(case, found[what]) for case, found in zip(CASES, compared) if what in found]
        wrong = [f"{case}: {why_not}" for case, why_not in counted if why_not]
        if wrong:
            wrong[0] = f"{len(wrong)} of {len(counted)} cases differ from torch's, the first: {wrong[0]}"
        right = f"equals torch's to 1e-6 in {len(counted)} cases of kernel, stride, padding and bias"
        findings.append(verdict(what, wrong, right, len(counted)))
    wrong = [
        f"{case}: {why}" for case in PAIRS if (why := next(filter(None, _compared(call, case).values()), ""))
    ]
    findings.append(
        remark(
            "pairs", f"stride and padding as pairs are not right: {wrong[0]}", len(PAIRS), "numbers suffice"
        )
        if wrong
        else equal("pairs", "stride and padding may be pairs (rows, columns)", len(PAIRS))
    )
    return [*findings, _memory(call)]


def _called(function: Callable[..., Any]) -> Callable[..., Any] | str:
    """A function of x, weight, bias, stride and padding; or what is missing, in words."""
    if isinstance(function, type):
        return _of_class(function)
    names = inspect.signature(function).parameters
    missing = [word for word in WORDS if word not in names]
    return f"it has no parameter {', '.join(missing)}" if missing else function


def _of_class(module: type[Any]) -> Callable[..., Any]:
    def call(*, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        height, width = weight.shape[2:]
        kernel = height if height == width else (height, width)
        layer = module(
            weight.shape[1], len(weight), kernel, stride=stride, padding=padding, bias=bias is not None
        )
        given = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer.double(), given, (x,))  # type: ignore[no-any-return]

    return call


def _compared(call: Callable[..., Any], case: _Case) -> dict[str, str | None]:
    """For the output and each gradient: how it differs from torch's, or None."""
    tensors = case.tensors()
    inputs = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    x, weight = inputs["x"], inputs["weight"]
    theirs = F.conv2d(x, weight, tensors["bias"], case.stride, case.padding)
    slope = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.autograd.grad(theirs, list(inputs.values()), slope)
    try:
        ours = call(**tensors, stride=case.stride, padding=case.padding)
        said: dict[str, str | None] = {"output": unlike(ours, theirs)}
        if said["output"] and not (isinstance(ours, Tensor) and ours.shape == theirs.shape):
            return said
        if not ours.requires_grad:
            return said | {f"gradient of {name}": "the output has no graph" for name in inputs}
        found = torch.autograd.grad(ours, list(inputs.values()), slope.to(ours.dtype), allow_unused=True)
    except Exception as error:
        return {"output": f"it raises {type(error).__name__}: {error}"}
    for name, own, other in zip(inputs, found, expected):
        said[f"gradient of {name}"] = "there is none" if own is None else unlike(own, other)
    return said


def _memory(call: Callable[..., Any]) -> Finding:
    """The bytes that autograd keeps for the backward pass, as a multiple of torch's."""

    def kept(convolution: Callable[..., Any]) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        draw = torch.Generator().manual_seed(1)
        x = torch.randn(4, 8, 16, 16, generator=draw, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(8, 8, 3, 3, generator=draw, dtype=torch.float64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = convolution(x=x, weight=weight, bias=None, stride=1, padding=1)
        del output
        return sum(sizes.values())

    torchs = kept(lambda x, weight, bias, stride, padding: F.conv2d(x, weight, bias, stride, padding))
    try:
        ours = kept(call)
    except Exception as error:
        return remark("memory", f"not measured: it raises {type(error).__name__}", 1)
    said = (
        f"it keeps {ours / torchs:.1f} times as much as torch for the backward pass (3×3, images of 8×16×16)"
    )
    if ours <= 1.5 * torchs:
        return equal("memory", said, 1)
    return remark("memory", said, 1, "unfolded columns are nine times the images; unfold again in backward")


def _shape_of(text: Any) -> Any:
    """`3x32x32` as (3, 32, 32)."""
    return tuple(int(side) for side in text.split("x")) if isinstance(text, str) else text


ImageShape = Annotated[tuple[Count, Count, Count], BeforeValidator(_shape_of)]


def check_model(
    bound: Bound,
    reference: Bound | None,
    *,
    shape: ImageShape = (3, 32, 32),
    classes: Count = 10,
    parameters: Count | None = None,
    least: Count | None = None,
) -> list[Finding]:
    """A model: images (N, *shape) to finite logits (N, classes), not probabilities; each image by itself;
    every parameter used; the number of parameters, and at least `least`. With a reference, the same
    logits for the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = bound(shape=shape, classes=classes, names=tuple(map(str, range(classes))))
        other = reference(shape=shape, classes=classes) if reference is not None else None
    if not isinstance(net, nn.Module):
        return [differs("model", f"it returns {type(net).__name__}; expected a torch.nn.Module", 1)]
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(1))
    net.eval()
    logits = net(x)
    size = f"({len(x)}, {classes})"
    if not isinstance(logits, Tensor) or logits.shape != (len(x), classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        why = f"{len(x)} images of {'×'.join(map(str, shape))} give {got}; expected {size}"
        return [differs("output", why, 1, "logits are (images, classes)")]
    count = sum(p.numel() for p in net.parameters())
    unused = [
        name
        for (name, _), slope in zip(
            net.named_parameters(),
            torch.autograd.grad(logits.sum(1).square().sum(), list(net.parameters()), allow_unused=True)
            if count
            else (),
        )
        if slope is None
    ]
    findings = [
        equal("output", f"{len(x)} images give logits {size}", len(x)),
        _probabilities(logits.detach()),
        _alone(net, x, logits.detach()),
        differs("parameters", f"no gradient reaches {', '.join(unused)}", count)
        if unused
        else equal("parameters", f"all {count:,} get a gradient", count),
    ]
    if parameters is not None and count != parameters:
        findings.append(differs("number of parameters", f"{count:,}; expected {parameters:,}", 1))
    if least is not None and count < least:
        findings.append(differs("number of parameters", f"{count:,}; expected at least {least:,}", 1))
    return [*findings, *([] if other is None else [_same_net(net, other.eval(), x)])]


def _probabilities(logits: Tensor) -> Finding:
    n = len(logits)
    if not logits.isfinite().all():
        return differs("logits", "some are not finite", n)
    sums_to_one = bool(((logits.sum(1) - 1).abs() < 1e-4).all() and (logits >= 0).all())
    sums_to_one |= bool(((logits.exp().sum(1) - 1).abs() < 1e-4).all())
    if sums_to_one:
        remedy = "leave the softmax out: the loss has it already, and twice it flattens the gradient"
        return differs("logits", "they are probabilities, or their logarithms", n, remedy)
    return equal("logits", "they are no probabilities", n)


def _alone(net: nn.Module, x: Tensor, logits: Tensor) -> Finding:
    with torch.no_grad():
        single = torch.cat([net(image[None]) for image in x])
    if why_not := unlike(single, logits, 1e-4):
        return differs("one image", f"alone it has other logits than among others: {why_not}", len(x))
    return equal("one image", "has the same logits alone as among others, in evaluation mode", len(x))


def _same_net(net: nn.Module, other: nn.Module, x: Tensor) -> Finding:
    """Whether the two give the same logits when the reference has the weights of the part."""
    ours, theirs = ([*each.parameters(), *each.buffers()] for each in (net, other))
    shapes = [[tuple(t.shape) for t in tensors] for tensors in (ours, theirs)]
    if shapes[0] != shapes[1]:
        listed = [" ".join(map(str, each)) for each in shapes]
        return differs("reference", f"its weights are {listed[0]}; the reference's {listed[1]}", 1)
    with torch.no_grad():
        for mine, its in zip(ours, theirs):
            its.copy_(mine)
        why_not = unlike(net(x), other(x), 1e-4)
    if why_not:
        return differs(
            "reference", f"with the same weights, other logits than the reference: {why_not}", len(x)
        )
    return equal("reference", "the same logits as the reference with the same weights", len(x))
