"""Models of torchvision and timm, with weights drawn at random: maps of grey, colour and
five-channel images, layers found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stresslens.config import registry
from stresslens.core.attack_base import attacked
from stresslens.core.draws import Draws
from stresslens.core.inspection import layer_to_explain

MODELS = {
    "resnet18": ("layer4.1.conv2", 64),
    "efficientvit_m1": ("stages.2.downsample", 64),
    "vit_tiny": ("blocks.11.norm1", 64),
}


def model_of(name: str, channels: int) -> nn.Module:
    torch.manual_seed(0)
    if name == "resnet18":
        from torchvision.models import resnet18

        net: nn.Module = resnet18(num_classes=4)
        net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        return net
    import timm

    full, size = {
        "vit_tiny": ("vit_tiny_patch16_224", {"img_size": 64}),
        "efficientvit_m1": ("efficientvit_m1", {}),
    }[name]
    made: nn.Module = timm.create_model(full, num_classes=4, in_chans=channels, **size)
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", MODELS)
def test_every_explainer_that_suits(name: str, channels: int) -> None:
    net, (layer, side) = model_of(name, channels), MODELS[name]
    side = 224 if name == "efficientvit_m1" else side
    x, y = (
        torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 3]),
    )
    cheap: dict[str, dict[str, Any]] = {
        "occlusion": {"size": side // 4, "stride": side // 4},
        "smooth_grad": {"samples": 2},
    }
    with attacked(net):
        assert layer_to_explain(net, x).startswith(layer)
        for each in registry.names("explainers"):
            if each == "rollout" and name != "vit_tiny":
                continue
            bound = registry.resolve(
                "explainers", {each: cheap.get(each, {"steps": 4} if each == "integrated_gradients" else {})}
            )
            maps = bound(model=net, x=x, y=y, draws=Draws(0, torch.arange(2))).checked(x, each)
            assert maps.values.shape == (2, side, side)
