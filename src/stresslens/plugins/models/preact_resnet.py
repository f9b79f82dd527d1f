from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from stresslens.core.types import Count, Shape
from stresslens.plugins.models._foreign import Moments
from stresslens.plugins.models._residual import PreActBlock, plain_or

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def preact_resnet(
    shape: Shape,
    classes: int,
    *,
    depth: Literal[18, 34] = 18,
    width: Count = 64,
    shortcut: Literal["active", "input"] = "active",
    last_norm: bool = True,
    mean: Moments | None = None,
    std: Moments | None = None,
) -> nn.Module:
    """Pre-activation ResNet for small images (He et al. 2016), with the tensor names of RobustBench.

    `weights: {file: PATH}` loads a checkpoint of its leaderboard (PreActResNet-18): a state dict, alone or
    under state_dict, model or net, also with the names of DataParallel. Images are in [0, 1] as they are,
    or become (x - `mean`) / `std`, if the checkpoint was trained so. `width` is the number of channels of
    the first of four groups of blocks, which double it in turn. Two things that its checkpoints differ in
    are no tensors: whether the `shortcut` of a block that changes the shape takes its input or what is
    `active` after batch norm and ReLU, and whether there is batch norm before the last layer (`last_norm`).
    """
    active = shortcut == "active"
    widths = [width, *(width * 2**k for k in range(4))]

    def group(k: int) -> nn.Sequential:
        inputs, outputs, stride = widths[k], widths[k + 1], 1 if k == 0 else 2
        first = PreActBlock(inputs, outputs, stride, active)
        others = (PreActBlock(outputs, outputs, 1, active) for _ in range(BLOCKS[depth][k] - 1))
        return nn.Sequential(first, *others)

    norm = {"bn": nn.BatchNorm2d(widths[4]), "relu": nn.ReLU()} if last_norm else {}
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(shape[0], width, 3, 1, 1, bias=False),
            layer1=group(0),
            layer2=group(1),
            layer3=group(2),
            layer4=group(3),
            **norm,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(widths[4], classes),
        )
    )


own_preprocessing = plain_or
