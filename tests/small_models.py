"""Every built-in model, small, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.layers import Normalize, with_input_layers

SMALL: dict[str, dict[str, Any]] = {
    "vit": {"width": 16, "depth": 2, "heads": 2, "mlp": 16},
    "window_vit": {"patch": 4, "width": 16, "depth": 2, "heads": 2, "window": 2, "local": [0]},
    "mlp": {"widths": [8]},
    "wide_resnet": {"depth": 10, "widen": 1},
    "preact_resnet": {"width": 8},
    "torchvision": {"name": "shufflenet_v2_x0_5"},
    "timm": {"name": "test_efficientnet"},
    "openclip": {
        "layout": {
            "embed": 16,
            "image": {"width": 16, "layers": 2, "heads": 2},
            "text": {"width": 16, "layers": 1},
        }
    },
}


OF_FILES = ("ensemble", "http", "onnx", "sklearn", "soup", "torch_export", "torchscript", "transformers")
"""Models that are made of files or of other runs, with tests of their own."""
BUILT = [name for name in registry.names("models") if name not in OF_FILES]


def model_of(name: str, shape: tuple[int, int, int]) -> nn.Sequential:
    """A model for images of this shape and four classes."""
    torch.manual_seed(0)
    net = registry.resolve("models", {name: SMALL.get(name, {})})(
        shape=shape, classes=4, names=["ant", "bee", "cat", "<dog>"]
    )
    return with_input_layers(net, Normalize.by_moments([0.5] * shape[0], [0.3] * shape[0]))


class Answering(nn.Module):
    """The logits of another module, without its gradient."""

    no_gradient = "a server"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).detach()
