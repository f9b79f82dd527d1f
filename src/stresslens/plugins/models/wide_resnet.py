from __future__ import annotations

from collections import OrderedDict

from torch import nn

from stresslens.core.types import Count, Decay, Shape
from stresslens.plugins.models._foreign import Moments
from stresslens.plugins.models._residual import Blocks, WideBlock, plain_or


def wide_resnet(
    shape: Shape,
    classes: int,
    *,
    depth: Count = 28,
    widen: Count = 10,
    dropout: Decay = 0.0,
    mean: Moments | None = None,
    std: Moments | None = None,
) -> nn.Module:
    """WideResNet for small images (Zagoruyko & Komodakis 2016), with the tensor names of RobustBench.

    `weights: {file: PATH}` loads a checkpoint of its leaderboard (WideResNet-28-10 is the default, others
    have a `depth` of 34 or 70 and `widen` 10 or 16): a state dict, alone or under state_dict, model or net,
    also with the names of DataParallel. Images are in [0, 1] as they are, or become (x - `mean`) / `std`,
    if the checkpoint was trained so. `dropout` is between the two convolutions of a block. Raises ValueError
    unless `depth` is 4 more than a multiple of 6.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth {depth}: expected 4 more than a multiple of 6 (16, 28, 34, 40, 70)")
    blocks, widths = (depth - 4) // 6, [16, *(16 * widen * 2**k for k in range(3))]

    def group(k: int) -> Blocks:
        inputs, outputs, stride = widths[k], widths[k + 1], 1 if k == 0 else 2
        first = WideBlock(inputs, outputs, stride, dropout)
        return Blocks([first, *(WideBlock(outputs, outputs, 1, dropout) for _ in range(blocks - 1))])

    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(shape[0], widths[0], 3, 1, 1, bias=False),
            block1=group(0),
            block2=group(1),
            block3=group(2),
            bn1=nn.BatchNorm2d(widths[3]),
            relu=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(widths[3], classes),
        )
    )


own_preprocessing = plain_or
