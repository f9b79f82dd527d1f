"""The logits among what a net returns, and the logits of its auxiliary heads.

The logits of a net that returns more than a tensor are what it calls `logits` (a key of a dictionary,
a field of a named tuple or of an output of Hugging Face), or else its only tensor of shape (N, K). In
training mode the first of several tensors of that shape is the logits, and the others are those of
auxiliary heads, as in GoogLeNet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from stresslens.core.errors import ConfigError


def logits_in(output: Any, net: nn.Module) -> Tensor:
    """The logits in what the net returned. Raises ConfigError where it is not clear which they are."""
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    scores = [tensor for tensor in _tensors(output) if _is_scores(tensor)]
    alike = len({tensor.shape for tensor in scores}) == 1
    if len(scores) == 1 or (net.training and alike):
        return scores[0]
    shapes = " and ".join(f"({', '.join(['N', *map(str, tensor.shape[1:])])})" for tensor in scores)
    what = f"{len(scores)} tensors that may be logits, {shapes}" if scores else "no tensor (N, classes)"
    mode = "in training mode" if net.training else "in evaluation mode"
    raise ConfigError(
        f"{type(net).__name__} returns a {type(output).__name__} with {what}, {mode}; "
        "expected logits (N, classes): return them alone, or under the name logits"
    )


def auxiliary_in(output: Any, net: nn.Module) -> list[Tensor]:
    """The logits of auxiliary heads in what a net in training mode returned: all other tensors of
    the shape of its logits."""
    if isinstance(output, Tensor) or not net.training:
        return []
    logits = logits_in(output, net)
    others = (tensor for tensor in _tensors(output) if tensor is not logits)
    return [tensor for tensor in others if tensor.shape == logits.shape and _is_scores(tensor)]


def return_logits(net: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
    """A forward hook: the net returns its logits alone (`logits_in`), and those of a single image as
    (1, K), where it squeezes them to (K,)."""
    if isinstance(output, Tensor):
        alone = output.ndim == 1 and bool(inputs) and isinstance(inputs[0], Tensor) and len(inputs[0]) == 1
        return output[None] if alone else None
    return logits_in(output, net)


def hook_logits(net: nn.Module) -> None:
    """Adds the hook `return_logits`, if the net lacks it."""
    if return_logits not in net._forward_hooks.values():
        nn.Module.register_forward_hook(net, return_logits)  # TorchScript's own method refuses


@contextmanager
def auxiliary_logits(net: nn.Module) -> Iterator[list[Tensor]]:
    """A list that the forward passes of a net with the hook `return_logits` fill, inside the context,
    with the logits (N, K) of its auxiliary heads; empty for any other net."""
    found: list[Tensor] = []

    def keep(net: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        found.extend(auxiliary_in(output, net))
        return return_logits(net, inputs, output)

    places = [key for key, hook in net._forward_hooks.items() if hook is return_logits]
    net._forward_hooks.update(dict.fromkeys(places, keep))
    try:
        yield found
    finally:
        net._forward_hooks.update(dict.fromkeys(places, return_logits))


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if is_dataclass(output):
        output = [getattr(output, field.name) for field in fields(output)]
    if isinstance(output, Mapping):
        output = list(output.values())
    return (
        [tensor for item in output for tensor in _tensors(item)] if isinstance(output, tuple | list) else []
    )


def _is_scores(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.is_floating_point() and tensor.shape[1] > 1
