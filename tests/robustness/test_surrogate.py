"""A surrogate that cannot stand in for the attacked model is refused, or told."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from stresslens import api
from stresslens.core.errors import ConfigError
from stresslens.robustness.surrogate import check_class_names


def linear(inputs: int = 48, classes: int = 3) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes)).eval()


X = torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(2))
MODEL = linear()
with torch.no_grad():
    MODEL[1].bias.copy_(MODEL[1].bias - MODEL(X).mean(0))
    Y = MODEL(X).argmax(1)


class Changed(nn.Module):
    def __init__(self, change: str) -> None:
        super().__init__()
        self.net, self.change = MODEL, change

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        if self.change == "order":
            return logits.roll(1, 1)
        if self.change == "constant":
            return 0 * logits + torch.tensor([0.0, 0, 2])
        if self.change == "softmax":
            return logits.softmax(1)
        if self.change == "some nan":
            return torch.where(x[:, 0, 0, :1] > 0.7, torch.nan, logits)
        return logits * torch.nan


@pytest.mark.parametrize(
    ("surrogate", "said"),
    [
        (linear(classes=4), "surrogate: it has 4 classes, the attacked model 3"),
        (linear(inputs=12), "surrogate: .* cannot take images of shape"),
        (Changed("nan"), "surrogate: .*NaN or infinity for all"),
        (Changed("softmax"), "surrogate: .*probabilities"),
        (object(), "surrogate is an object; expected a torch.nn.Module"),
    ],
    ids=["classes", "shape", "nan", "softmax", "no module"],
)
def test_what_cannot_stand_in_is_refused(surrogate: nn.Module, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        api.attack(MODEL, X, Y, radii=[0.1], protocol=["transfer"], surrogate=surrogate, audit=False)


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("surrogate", "status", "said"),
    [
        (MODEL, "no sign", "right on 60 of 60"),
        (Changed("order"), "sign", "with its classes in another order it would be on 60"),
        (Changed("constant"), "sign", "most frequent class"),
        (Changed("some nan"), "sign", r"has no answer \(not finite\) to"),
    ],
    ids=["itself", "order", "constant", "some nan"],
)
def test_what_does_not_know_the_images_is_told(surrogate: nn.Module, status: str, said: str) -> None:
    surrogate.train()
    found = api.attack(MODEL, X, Y, radii=[0.02], protocol=["transfer"], surrogate=surrogate)
    (finding,) = [each for each in found.findings if each.audit == "surrogate"]
    assert finding.status == status
    assert re.search(said, finding.evidence)
    assert surrogate.training


def test_classes_of_runs_are_compared_by_name() -> None:
    check_class_names(["cat", "Dog"], ["cat", "dog"], "a run")
    with pytest.raises(ConfigError, match="another order"):
        check_class_names(["dog", "cat"], ["cat", "dog"], "a run")
    with pytest.raises(ConfigError, match="differs is 'emu', here 'dog'"):
        check_class_names(["cat", "emu"], ["cat", "dog"], "a run")
