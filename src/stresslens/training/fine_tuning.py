"""Fine-tuning: frozen layers, gradual unfreezing and layer-wise learning rates."""

from __future__ import annotations

import itertools
import re
from functools import cached_property

import torch
from torch import nn

from stresslens.config.schema import FineTune
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import classifier_layers, evaluating, hooked
from stresslens.core.types import Parameters, Shape
from stresslens.training.batch_norm import BATCH_NORM

NORMS = (BATCH_NORM, nn.LayerNorm, nn.GroupNorm)


class FineTuning:
    """Trains the blocks of a net as `train.fine_tune` says.

    `model` is a net behind its input layers, `shape` that of an image. Raises ConfigError where the
    net lacks what `fine_tune` needs: a last layer of its own, or batch norm.
    """

    def __init__(self, model: nn.Module, tune: FineTune, shape: Shape) -> None:
        self.model, self.tune, self.shape = model, tune, shape
        if (tune.layers != "all" or tune.head_lr_scale != 1) and not classifier_layers(model, shape):
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
        """The net's blocks from the image to the logits; the last one is the head."""
        return blocks_of(self.model, self.shape)

    def parameters(self, lr: float) -> Parameters:
        """The parameters for the optimizer: all that are ever trained, in groups of their own
        learning rates where these differ."""
        tune = self.tune
        if tune.layer_decay == tune.head_lr_scale == 1:
            return [p for p in self.model.parameters() if p.requires_grad]
        groups = []
        for distance, block in enumerate(reversed(self.blocks)):  # from the head
            block_lr = lr * tune.layer_decay**distance * (1 if distance else tune.head_lr_scale)
            groups.append({"params": [p for p in block if p.requires_grad], "lr": block_lr})
        return [group for group in reversed(groups) if group["params"]]

    def begin(self, epoch: int) -> None:
        """Prepares an epoch: what is trained in it is in training mode; what is frozen is in
        evaluation mode, batch norm included."""
        self.model.train()
        if self.tune.layers == "all" and self.tune.batch_norm == "train":
            return
        if self.tune.layers == "gradual":
            unfrozen = 1 + epoch // self.tune.unfreeze_every
            for distance, block in enumerate(reversed(self.blocks)):  # from the head
                for parameter in block:
                    parameter.requires_grad_(distance < unfrozen)
        for module in self.model.modules():
            trained = [p.requires_grad for p in module.parameters()]
            frozen = trained and not any(trained)
            if frozen or (isinstance(module, BATCH_NORM) and self.tune.batch_norm == "keep"):
                module.eval()
        for module in itertools.takewhile(
            lambda leaf: not any(p.requires_grad for p in leaf.parameters()), self.leaves
        ):
            module.eval()  # dropout before the first layer that is trained

    @cached_property
    def leaves(self) -> list[nn.Module]:
        """Modules without submodules, in the order of a forward pass."""
        reached: dict[nn.Module, None] = {}
        with (
            evaluating(self.model),
            torch.no_grad(),
            hooked(self.model, lambda name, leaf, *_: reached.setdefault(leaf)),
        ):
            self.model(as_input(torch.zeros(2, *self.shape), self.model))
        return list(reached)


def blocks_of(model: nn.Module, shape: Shape) -> list[list[nn.Parameter]]:
    """The net's parameters in blocks, in the order of a forward pass; the layer that gives the logits
    is the last block.

    A block is the layers whose names are equal up to the first number (`layer1.0`, `blocks.3`). A
    layer without a number is a block of its own, and a norm belongs to the block before it.
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
    try:
        with evaluating(model), torch.no_grad():
            model(as_input(torch.zeros(2, *shape), model))
    finally:
        for handle in handles:
            handle.remove()
    head = set(classifier_layers(model, shape))
    norms = {name for name, module in net.named_modules() if isinstance(module, NORMS)}
    blocks: dict[str, list[nn.Parameter]] = {name: [] for name in reached}
    belongs_to: dict[str, str] = {}
    for before, name in itertools.pairwise([next(iter(reached), ""), *reached]):
        belongs_to[name] = belongs_to.get(before, before) if name in norms else name
    head_block: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        if name in head:
            head_block.append(parameter)
        else:
            block = _block(name.rpartition(".")[0])
            blocks.setdefault(belongs_to.get(block, block), []).append(parameter)
    return [block for block in blocks.values() if block] + ([head_block] if head_block else [])


def _block(module: str) -> str:
    """The name of the block that a module is in: `layer1.0.conv2` → `layer1.0`;
    `layers.layer_3.mlp` → `layers.layer_3`; `conv1` → `conv1`."""
    parts = module.split(".")
    numbered = (index for index, part in enumerate(parts) if re.search(r"(^|_)\d+$", part))
    return ".".join(parts[: next(numbered, len(parts) - 1) + 1])
