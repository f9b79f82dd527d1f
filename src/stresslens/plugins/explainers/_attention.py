"""The attention that a model really computes, taken from the matrix products of its forward pass.

Nothing is assumed about how queries and keys become weights: rotated, biased, masked or normalised,
what counts is the matrix that the values are multiplied with. What the matrix says of the image is
checked in the graph of the same pass, on noise: its tokens lie on the image row by row, they are
the tokens of the next attention, and nothing else mixes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from stresslens.core.attack_base import apart
from stresslens.core.center_crop import SeenPart, seen_part
from stresslens.core.errors import ConfigError
from stresslens.core.gradient_graph import is_opaque, nodes
from stresslens.core.inspection import Layout, layout_of, without_compiling

_aten = torch.ops.aten
PRODUCTS = {_aten.bmm.default: 0, _aten.mm.default: 0, _aten.baddbmm.default: 1, _aten.addmm.default: 1}
"""The matrix products, and the position of their first factor."""
SOFTMAXES = (_aten._softmax.default, _aten._safe_softmax.default)
ROUNDING = 1e-3
NARROWEST = 0.65
"""The least share of the image's sides over which the tokens lie. (A patch that does not divide the
side leaves a margin.) Within windows it is half or less."""


def refused(why: str) -> ConfigError:
    return ConfigError(f"rollout: {why}; rollout needs a vision transformer that attends over all its tokens")


@dataclass(frozen=True)
class Attention:
    """One attention of one image, with B heads over T tokens."""

    weights: Tensor
    """(B, T, T): how much of each token's value (last axis) every token gets. Rows add up to 1."""
    values: Tensor
    """(B, T, d), or (B, d, T); a tensor of the graph, as `mixed`."""
    mixed: Tensor
    """weights · values."""
    axis: int
    """The axis of the tokens in `values` and `mixed`: -2, or -1."""


@dataclass(frozen=True)
class Tokens:
    """The T tokens of a model: which lie on the image, how, and which of them the head reads."""

    of_image: Tensor
    """(T,) False for a class token and the like."""
    layout: Layout
    read: Tensor
    """(T,)."""


class _Products(TorchDispatchMode):
    """Records the products of two activations, and how often a softmax gives a square matrix."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.factors: list[tuple[Tensor, Tensor, Tensor]] = []
        self.softmaxes = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if not torch.is_grad_enabled():
            return result
        if function in PRODUCTS:
            left, right = args[PRODUCTS[function] :][:2]
            if left.requires_grad and right.requires_grad:
                self.factors.append((left, right, result if PRODUCTS[function] == 0 else left.new_empty(0)))
        elif function in SOFTMAXES and args[0].requires_grad:
            self.softmaxes += args[0].ndim > 1 and args[0].shape[-1] == args[0].shape[-2]
        return result


def attentions(model: nn.Module, x: Tensor) -> tuple[list[Attention], Tensor, Tensor]:
    """The attentions of one image x (1, C, H, W), the image with its gradient on, and the logits.

    The model must be frozen (`attacked`). Raises ConfigError if there is none, or not only what
    rollout knows.
    """
    point = x.detach().clone().requires_grad_()
    with torch.no_grad():
        plain = model(x)  # models with a text side encode their captions here
    with ExitStack() as stack:
        for context in (torch.enable_grad(), without_compiling(), sdpa_kernel(SDPBackend.MATH)):
            stack.enter_context(context)
        products = stack.enter_context(_Products())
        logits = model(point)
    if float(apart(plain, logits.detach()).max()) > ROUNDING:
        raise refused("the model answers otherwise while it is watched, or at random")
    hidden = sorted({n.name() for n in nodes(logits) if is_opaque(n) or "attention" in n.name().lower()})
    if hidden:
        raise refused(f"a part of the model is computed as one step ({hidden[0]}), and may hide attention")
    return _sorted(products), point, logits


def _sorted(products: _Products) -> list[Attention]:
    """The products that are attentions; the others may only give their scores, query · key."""
    found, others = [], []
    for left, right, result in products.factors:
        a, b, out = (part if part.ndim == 3 else part[None] for part in (left, right, result))
        if _adds_up(a, -1):
            found.append(Attention(a.detach(), b, out, -2))
        elif _adds_up(b, -2):
            found.append(Attention(b.detach().mT, a, out, -1))
        else:
            others.append(out)
    if not found and not others:
        raise refused("the model has no attention layers")
    for attention in found:
        to, tokens = attention.weights.shape[1:]
        if to != tokens:
            raise refused(f"the model attends from {to} tokens to {tokens} others (cross attention)")
    sizes = sorted({attention.weights.shape[-1] for attention in found})
    if len(sizes) > 1:
        raise refused(
            f"the number of tokens changes from layer to layer ({', '.join(map(str, sizes))}): it attends "
            "within windows, or merges tokens"
        )
    scores = sum(out.shape[-2:] == (size, size) for out in others for size in sizes)
    if scores < len(others) or max(scores, products.softmaxes) > len(found):
        raise refused(
            "the model multiplies activations in a way that is no attention with weights that add up to 1 "
            "(such as attention over channels, linear attention, or heads mixed after the softmax)"
        )
    return found


def _adds_up(weights: Tensor, axis: int) -> bool:
    """Whether the numbers are not negative and add up to 1 along the axis."""
    values = weights.detach().float()
    near = 32 * torch.finfo(weights.dtype).eps * values.shape[axis] ** 0.5 + 1e-5
    return bool((values >= 0).all() and ((values.sum(axis) - 1).abs() <= near).all())


def tokens_of(model: nn.Module, x: Tensor) -> Tokens:
    """The tokens of a model on images like x (N, C, H, W), found with noise of the same shape.

    Raises ConfigError if they do not lie on the image row by row, are others in another layer, or
    are mixed by more than attention.
    """
    draws = torch.Generator().manual_seed(0)
    noise = [torch.rand(1, *x.shape[1:], generator=draws).to(x) for _ in range(2)]
    layers, image, logits = attentions(model, noise[0])
    other = attentions(model, noise[1])[0]
    first, count = layers[0], layers[0].weights.shape[-1]

    def by_token(values: Tensor, axis: int) -> Tensor:
        return values.movedim(axis, 0).flatten(1)

    of_image = (by_token(first.values - other[0].values, first.axis).abs() > 0).any(1)
    shape = (int(of_image.sum()), 1)
    part = seen_part(model, (x.shape[2], x.shape[3]))
    layout = layout_of((2, *shape), (3, *shape), part.sides)
    if layout is None or layout.extra:
        height, width = part.sides
        raise refused(f"{shape[0]} tokens cannot be laid out like an image of {height}×{width}")
    _check_places(first, image, of_image, layout, part)
    for one, following in itertools.pairwise(layers):
        reached = _reached(_some(following.values, following.axis, count), one.mixed)
        if reached is None or bool((by_token(reached, one.axis).abs() > 0).any(1)[~_chosen(count)].any()):
            raise refused(
                "the tokens of a layer are not those of the layer before, or more than attention mixes them"
            )
    reached = _reached(logits, layers[-1].mixed)
    if reached is None:
        raise refused("the logits do not depend on the last attention")
    read = (by_token(reached, layers[-1].axis).abs() > 0).any(1)
    if not read.any():  # a head of zeros
        read = ~of_image if not of_image.all() else of_image
    if read[of_image].any() and not read[of_image].all():
        raise refused("the head reads some tokens of the image and not others")
    return Tokens(of_image, layout, read)


def _chosen(count: int) -> Tensor:
    """(T,) every third token, the first included."""
    return torch.arange(count) % 3 == 0


def _some(values: Tensor, axis: int, count: int) -> Tensor:
    return values.movedim(axis, 0)[_chosen(count)]


def _reached(values: Tensor, source: Tensor) -> Tensor | None:
    """The gradient at the source of a random sum of the values; None if nothing leads there."""
    draws = torch.Generator().manual_seed(1)
    total = (values * (0.5 + torch.rand(values.shape, generator=draws)).to(values)).sum()
    return torch.autograd.grad(total, source, retain_graph=True, allow_unused=True)[0]


def _check_places(first: Attention, image: Tensor, of_image: Tensor, layout: Layout, part: SeenPart) -> None:
    """Raises ConfigError unless tokens depend on the pixels where the layout places them, for the
    first and for the last head: the middles of these pixels lie on a grid over the image."""
    rows, columns = layout.sides
    count = rows * columns
    places = [0, count - 1, 1, columns, count // 2]
    expected = torch.tensor([divmod(place, columns) for place in places], dtype=torch.float64)
    tokens = torch.arange(len(of_image), device=of_image.device)[of_image][places]
    found = []
    for head in (0, -1):
        values = first.values.movedim(first.axis, 1)[head]  # (T, d)
        found.append(torch.stack([_middle(_reached(values[token], image), layout, part) for token in tokens]))
    span = (found[0][1] - found[0][0]) / (expected[1] - expected[0])
    on_grid = found[0][0] + span * expected
    near = [(middles - on_grid).abs().max() <= 0.5 for middles in found]
    if not (all(near) and span.min() >= NARROWEST and found[0][0].abs().max() <= 1):
        raise refused(
            "the tokens do not lie on the image row by row: it attends within windows, or moves its tokens"
        )


def _middle(slope: Tensor | None, layout: Layout, part: SeenPart) -> Tensor:
    """(row, column) the middle of the pixels that count, in cells of the grid; NaN without any."""
    if slope is None:
        return torch.full((2,), torch.nan, dtype=torch.float64)
    weight = part.of(slope)[0].abs().sum(0).double().cpu()
    sides = zip((weight.sum(1), weight.sum(0)), layout.sides)
    ends = [
        (w @ (torch.arange(len(w), dtype=w.dtype) + 0.5)) / w.sum() * cells / len(w) - 0.5
        for w, cells in sides
    ]
    return torch.stack(ends)
