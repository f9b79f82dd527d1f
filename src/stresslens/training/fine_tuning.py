"""Which layers of a net are trained, from when, and how fast: what distinguishes fine-tuning from
training."""

from __future__ import annotations

import itertools
import re
from functools import cached_property

import torch
from torch import nn

from stresslens.config.schema import FineTune
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import evaluating, hooked, last_layer
from stresslens.core.types import Parameters, Shape

BATCH_NORM = nn.modules.batchnorm._BatchNorm
NORMS = (BATCH_NORM, nn.LayerNorm, nn.GroupNorm)


class FineTuning:
    """A net's blocks from the image up, the last layer at the end, as a recipe's `fine_tune` has them trained."""

    def __init__(self, model: nn.Module, tune: FineTune, shape: Shape) -> None:
        self.model, self.tune, self.shape = model, tune, shape
        if (tune.layers != "all" or tune.head_lr_scale != 1) and not last_layer(model, shape):
            what = f"layers: {tune.layers}" if tune.layers != "all" else "head_lr_scale"
            raise ConfigError(
                f"train.fine_tune: {what}: this net has no last layer of its own, which gives the logits"
            )
        if tune.batch_norm == "keep" and not any(
            isinstance(module, BATCH_NORM) for module in model.modules()
        ):
            raise ConfigError("train.fine_tune: batch_norm: keep: this net has no batch norm; leave it out")
        if tune.layers == "head":
            for block in self.blocks[:-1]:
                for parameter in block:
                    parameter.requires_grad_(False)

    @cached_property
    def blocks(self) -> list[list[nn.Parameter]]:
        return blocks_of(self.model, self.shape)

    def parameters(self, lr: float) -> Parameters:
        """What the optimizer is given: parameters that are ever trained, in groups where their
        rates differ."""
        tune = self.tune
        if tune.layer_decay == tune.head_lr_scale == 1:
            return [p for p in self.model.parameters() if p.requires_grad]
        groups = []
        for behind, block in enumerate(reversed(self.blocks)):
            rate = lr * tune.layer_decay**behind * (1 if behind else tune.head_lr_scale)
            groups.append({"params": [p for p in block if p.requires_grad], "lr": rate})
        return [group for group in reversed(groups) if group["params"]]

    def begin(self, epoch: int) -> None:
        """Training mode for what is trained in this epoch; what is frozen answers as in evaluation,
        batch norm included."""
        self.model.train()
        if self.tune.layers == "all" and self.tune.batch_norm == "train":
            return
        if self.tune.layers == "gradual":
            free = 1 + epoch // self.tune.unfreeze_every
            for k, block in enumerate(reversed(self.blocks)):
                for parameter in block:
                    parameter.requires_grad_(k < free)
        for module in self.model.modules():
            own = [p.requires_grad for p in module.parameters()]
            if (own and not any(own)) or (isinstance(module, BATCH_NORM) and self.tune.batch_norm == "keep"):
                module.eval()
        for module in itertools.takewhile(
            lambda leaf: not any(p.requires_grad for p in leaf.parameters()), self.leaves
        ):
            module.eval()  # dropout in front of all that is trained

    @cached_property
    def leaves(self) -> list[nn.Module]:
        """Modules without parts, in the order in which a forward pass reaches them."""
        found: dict[nn.Module, None] = {}
        first = next(self.model.parameters())
        with (
            evaluating(self.model),
            torch.no_grad(),
            hooked(self.model, lambda name, leaf, *_: found.setdefault(leaf)),
        ):
            self.model(torch.zeros(2, *self.shape, device=first.device, dtype=first.dtype))
        return list(found)


def blocks_of(model: nn.Module, shape: Shape) -> list[list[nn.Parameter]]:
    """The net's parameters in blocks, in the order in which a forward pass reaches them; the layer
    of the logits is the last one.

    A block is what shares its name up to the first number in it (`layer1.0`, `blocks.3`), a layer
    without one is its own, and a norm belongs to the block in front of it.
    """
    net = model.get_submodule("net")
    reached: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: reached.setdefault(_block(name), None)
        )
        for name, module in net.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    first = next(model.parameters())
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(2, *shape, device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
    head = set(last_layer(model, shape))
    norms = {name for name, module in net.named_modules() if isinstance(module, NORMS)}
    order = {name: place for place, name in enumerate(reached)}
    blocks: dict[str, list[nn.Parameter]] = {name: [] for name in reached}
    merged: dict[str, str] = {}
    for name in reached:
        before = list(reached)[order[name] - 1] if order[name] else name
        merged[name] = merged.get(before, before) if name in norms else name
    last: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        if name in head:
            last.append(parameter)
        else:
            block = _block(name.rpartition(".")[0])
            blocks.setdefault(merged.get(block, block), []).append(parameter)
    return [block for block in blocks.values() if block] + ([last] if last else [])


def _block(module: str) -> str:
    """`layer1.0.conv2` → `layer1.0`; `layers.layer_3.mlp` → `layers.layer_3`; `conv1` → `conv1`."""
    parts = module.split(".")
    number = next(
        (place for place, part in enumerate(parts) if re.search(r"(^|_)\d+$", part)), len(parts) - 1
    )
    return ".".join(parts[: number + 1])
