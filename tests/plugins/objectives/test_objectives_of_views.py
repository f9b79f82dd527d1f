"""Objectives that compare versions of the same image: their equations, written out, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Step
from stresslens.plugins.objectives.supervised_contrastive import contrast


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def batch(n: int = 8) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, torch.arange(n) % 3


def value_of(objective: Any, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    step = Step(Draws(5, torch.arange(len(x))), 0, 0.0, {})
    found: Tensor = registry.resolve("objectives", objective)(model=model, x=x, y=y, step=step)
    return found


def views(x: Tensor, y: Tensor, name: str) -> list[Tensor]:
    step = Draws(5, torch.arange(len(x)))
    augmentation = registry.resolve("augmentations", name)
    return [augmentation(x=x, y=y, draws=step.fork(number))[0] for number in (1, 2)]


@pytest.mark.parametrize("weight", [0.0, 12.0])
def test_jensen_shannon_is_augmixs_equation(weight: float) -> None:
    """As the authors' code writes it: KL of each distribution from their mean."""
    model, (x, y) = net(), batch()
    p = [model(each).softmax(1) for each in (x, *views(x, y, "augmix"))]
    mean = torch.stack(p).mean(0)
    divergence = sum((q * (q / mean).log()).sum(1).mean() for q in p) / 3
    found = value_of({"jensen_shannon": {"weight": weight}}, model, x, y)
    assert torch.allclose(found, F.cross_entropy(model(x), y) + weight * divergence)
    assert divergence > 1e-6


def test_the_divergence_of_bfloat16_logits_is_computed_in_float32() -> None:
    """In bfloat16 rounding alone makes that of these nearly equal answers wrong, even negative."""
    logits = 3 * torch.randn(24, 10, generator=torch.Generator().manual_seed(0)).repeat(3, 1)
    logits = (logits[:24] + 0.05 * logits.roll(1, 0)[:72].view(3, 24, 10)).flatten(0, 1).bfloat16()
    x, y = batch(24)
    objective = {"jensen_shannon": {"augmentation": "flip"}}
    with torch.autocast("cpu", torch.bfloat16):
        found = value_of(objective, lambda images: logits, x, y)  # type: ignore[arg-type]
    assert torch.allclose(found, value_of(objective, lambda images: logits.float(), x, y))  # type: ignore[arg-type]


def test_the_divergence_of_equal_answers_is_none() -> None:
    model, (x, y) = net(), batch()
    for same in ({"augmix": {"chance": 0}}, {"flip": {"chance": 0}}):
        found = value_of({"jensen_shannon": {"augmentation": same}}, model, x, y)
        assert torch.allclose(found, F.cross_entropy(model(x), y))


def test_contrast_is_khoslas_second_equation() -> None:
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, temperature = torch.arange(9) % 3, 0.3
    z = F.normalize(features, dim=1)
    total = 0.0
    for i in range(9):
        others = [a for a in range(9) if a != i]
        below = sum(torch.exp(z[i] @ z[a] / temperature) for a in others)
        positives = [a for a in others if labels[a] == labels[i]]
        logs = [torch.log(torch.exp(z[i] @ z[p] / temperature) / below) for p in positives]
        total += float(-sum(logs) / len(positives))
    assert float(contrast(features, labels, temperature)) == pytest.approx(total / 9)


def test_contrast_of_classes_of_their_own_is_simclrs() -> None:
    """Every image its own class: the loss of Chen et al. (2020)."""
    features = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = F.normalize(features, dim=1)
    similar = (z @ z.t() / 0.5).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(similar, (torch.arange(10) + 5) % 10)
    assert torch.allclose(contrast(features, torch.arange(5).repeat(2), 0.5), expected)


def test_supervised_contrastive_adds_the_contrast_of_the_last_features() -> None:
    model, (x, y) = net(), batch()
    images = torch.cat(views(x, y, "flip"))
    features, labels = model[:3](images), y.repeat(2)
    expected = F.cross_entropy(model(images), labels) + 0.5 * contrast(features, labels, 0.1)
    options = {"augmentation": "flip", "weight": 0.5}
    found = value_of({"supervised_contrastive": options}, model, x, y)
    assert torch.allclose(found, expected, rtol=1e-5)  # features are float32


@pytest.mark.parametrize("name", ["jensen_shannon", "supervised_contrastive"])
@pytest.mark.parametrize("augmentation", ["mixup", {"random_resized_crop": {"size": 3}}])
def test_augmentations_that_change_labels_or_sizes_are_refused(name: str, augmentation: Any) -> None:
    with pytest.raises(ConfigError, match="keeps labels and sizes"):
        value_of({name: {"augmentation": augmentation}}, net(), *batch())


def test_mixed_labels_suit_jensen_shannon_alone() -> None:
    model, (x, y) = net(), batch()
    soft = F.one_hot(y, 3).double()
    assert torch.allclose(value_of("jensen_shannon", model, x, soft), value_of("jensen_shannon", model, x, y))
    with pytest.raises(ConfigError, match="one label an image"):
        value_of("supervised_contrastive", model, x, soft)
