"""The layers whose outputs are the logits, in nets with one head and with several."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.inspection import classifier_layers
from stresslens.core.pretrained import load_into

CLASSES = 3


class Distilled(nn.Module):
    """The mean of two heads, as in DeiT, LeViT and EfficientFormer; with a hidden layer as wide as there
    are classes. With `training_only`, a third head is used in training mode alone."""

    def __init__(self, classes: int = CLASSES, *, training_only: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES), nn.Tanh(), nn.Linear(CLASSES, 8))
        self.head = nn.ModuleList(
            [nn.Linear(8, classes), nn.Sequential(nn.LayerNorm(8), nn.Linear(8, classes))]
        )
        self.third = nn.Linear(8, classes) if training_only else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        out: Tensor = (self.head[0](x) + self.head[1](x)) / 2
        return out if self.third is None or not self.training else out + self.third(x)


class Tokens(nn.Module):
    """A head on the class token and one on the other tokens, as in VOLO."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.aux_head = nn.Linear(4, CLASSES), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(1, 2)
        out: Tensor = self.head(tokens[:, 0]) + 0.5 * self.aux_head(tokens[:, 1:]).amax(1)
        return out


def parameters(*names: str) -> set[str]:
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("net", "heads"),
    [
        (Distilled(), ("head.0", "head.1.1")),
        (Tokens(), ("head", "aux_head")),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES), nn.ReLU(), nn.Linear(CLASSES, CLASSES)), ("3",)),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES), nn.Tanh()), ("1",)),
    ],
    ids=["two heads", "heads of tokens", "hidden layer of that width", "one head"],
)
def test_all_layers_that_give_the_logits_are_found(net: nn.Module, heads: Any) -> None:
    assert set(classifier_layers(net, (1, 4, 4))) == parameters(*heads)


def test_all_heads_are_begun_anew_for_other_classes() -> None:
    net, source = Distilled(training_only=True), Distilled(10, training_only=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    head = classifier_layers(net, (1, 4, 4))
    report = load_into(net, source.state_dict(), "it", head=head, keep_head=True)
    assert set(report.fresh) == parameters("head.0", "head.1.1", "third")
    after = net.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)
    assert torch.equal(after["body.1.weight"], source.body[1].weight)
    assert torch.equal(after["head.1.0.weight"], source.head[1][0].weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("deit_tiny_distilled_patch16_224", ("head", "head_dist")),
        ("levit_128s", ("head.linear", "head_dist.linear")),
        ("crossvit_tiny_240", ("head.0", "head.1")),
        ("volo_d1_224", ("head", "aux_head")),
        ("efficientformer_l1", ("head", "head_dist")),
        ("efficientformerv2_s0", ("head", "head_dist")),
        ("repvit_m1", ("head.head.l", "head.head_dist.l")),
        ("resnet18", ("fc",)),
        ("swin_tiny_patch4_window7_224", ("head.fc",)),
    ],
)
def test_the_heads_of_timms_nets_are_found(name: str, heads: tuple[str, ...]) -> None:
    from stresslens.plugins.models.timm import timm

    size = 240 if "240" in name else 224
    assert set(classifier_layers(timm((3, size, size), 7, name=name), (3, size, size))) == parameters(*heads)
