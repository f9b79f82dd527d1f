"""The contrastive loss: against a slow loop, against open_clip's, and that shuffled captions teach
nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Step
from stresslens.plugins.models._zero_shot import open_clip

NAMES = ("cat", "dog", "ship", "aeroplane", "frog")
LAYOUT = {"embed": 16, "image": {"width": 16, "layers": 1, "patch": 3}, "text": {"width": 16, "layers": 1}}
SHAPE = (3, 6, 6)


QUARTERS = (
    torch.eye(4, dtype=torch.float64)
    .view(4, 1, 2, 2)
    .repeat_interleave(3, 2)
    .repeat_interleave(3, 3)
    .expand(4, *SHAPE)
)
"""An image of each class: a white quarter."""


def net_of() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return registry.resolve("models", {"openclip": {"layout": LAYOUT}})(
            shape=SHAPE, classes=len(NAMES), names=NAMES
        ).double()


def batch(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64), torch.randint(
        4, (n,), generator=generator
    )


def loss_of(net: Any, x: Tensor, y: Tensor, *, seed: int = 0, **options: Any) -> Tensor:
    step = Step(Draws(seed, torch.arange(len(x))), 0, 0.0, {})
    found: Tensor = registry.resolve("objectives", {"contrastive": options})(
        y=y, step=step, net=net, inputs=x
    )
    return found


def by_loop(net: Any, x: Tensor, y: Tensor, template: str) -> float:
    """Every image against the captions of the classes present, every caption against the images:
    mean of -log of what is right."""
    present = sorted(set(y.tolist()))
    names = net.names
    tokens = open_clip().tokenizer.SimpleTokenizer()(
        [template.replace("{}", names[k]) for k in present], context_length=16
    )
    image, text = (F.normalize(each, dim=-1) for each in (net.encode_image(x), net.encode_text(tokens)))
    of_images, of_captions = 0.0, 0.0
    scale = net.logit_scale.exp().item()
    cosine = [[(i @ t).item() * scale for t in text] for i in image]
    for k, label in enumerate(y.tolist()):
        total = sum(math.exp(value) for value in cosine[k])
        of_images -= math.log(math.exp(cosine[k][present.index(label)]) / total) / len(y)
    for place, label in enumerate(present):
        column = [row[place] for row in cosine]
        total = sum(math.exp(value) for value in column)
        right = [k for k, other in enumerate(y.tolist()) if other == label]
        of_captions -= sum(math.log(math.exp(column[k]) / total) for k in right) / len(right) / len(present)
    return (of_images + of_captions) / 2


@pytest.mark.parametrize("n", [1, 2, 9])
def test_it_is_the_slow_loop(n: int) -> None:
    net, (x, y) = net_of(), batch(n)
    assert loss_of(net, x, y, templates=["see a {}"]).item() == pytest.approx(
        by_loop(net, x, y, "see a {}"), abs=1e-9
    )


def test_where_every_image_is_of_a_class_of_its_own_it_is_open_clips() -> None:
    net, x, y = net_of(), batch(5)[0], torch.tensor([3, 1, 4, 0, 2])
    image = F.normalize(net.encode_image(x), dim=-1)
    text = F.normalize(net.encode_text(net.captions(["{}"])[y, 0]), dim=-1)
    expected = open_clip().ClipLoss()(image, text, net.logit_scale.exp())
    assert torch.allclose(loss_of(net, x, y, templates=["{}"]), expected)


def test_each_caption_is_drawn_from_the_templates() -> None:
    net, (x, y) = net_of(), batch(9)
    templates = ["a {}", "one {}", "the {} itself"]
    alone = {loss_of(net, x, y, templates=[template]).item() for template in templates}
    mixed = {loss_of(net, x, y, seed=seed, templates=templates).item() for seed in range(12)}
    assert len(mixed) > 3
    assert not mixed <= alone
    assert loss_of(net, x, y, templates=templates).item() == loss_of(net, x, y, templates=templates).item()


def test_shuffled_captions_are_those_of_other_images() -> None:
    net, (x, y) = net_of(), batch(9)
    order = Draws(0, torch.arange(9)).uniform().argsort()
    assert not torch.equal(y, y[order])
    found = loss_of(net, x, y, templates=["{}"], captions="shuffled")
    assert torch.equal(found, loss_of(net, x, y[order], templates=["{}"]))
    assert not torch.equal(found, loss_of(net, x, y, templates=["{}"]))


def test_the_scale_stays_below_a_hundred() -> None:
    net, (x, y) = net_of(), batch(9)
    with torch.no_grad():
        net.logit_scale.fill_(9.0)
    loss_of(net, x, y)
    assert net.logit_scale.exp().item() == pytest.approx(100)


@pytest.mark.slow
def test_true_captions_are_learnt_and_shuffled_ones_are_not() -> None:
    """Images whose classes are plain to see."""
    right = {}
    for captions in ("true", "shuffled"):
        net = net_of().train()
        optimizer = torch.optim.Adam(net.parameters(), 0.003)
        for step in range(90):
            y = torch.randint(4, (32,), generator=torch.Generator().manual_seed(step))
            x = QUARTERS[y]
            optimizer.zero_grad()
            loss_of(net, x, y, seed=step, captions=captions, templates=["one {}", "see the {}"]).backward()
            optimizer.step()
        net.eval().tell_apart(NAMES, ["one {}"])
        right[captions] = float((net(x).argmax(1) == y).double().mean())
    assert right["true"] == 1
    assert right["shuffled"] < 0.8


@pytest.mark.parametrize(
    "net", [nn.Linear(3, 4), nn.Sequential(nn.Flatten(), nn.Linear(108, 4))], ids=["linear", "sequential"]
)
def test_a_model_without_a_text_side_is_refused(net: nn.Module) -> None:
    with pytest.raises(ConfigError, match="no text side; use `model: openclip`"):
        loss_of(net, *batch(3))


def test_mixed_labels_are_refused() -> None:
    x, y = batch(3)
    with pytest.raises(ConfigError, match="one label an image"):
        loss_of(net_of(), x, F.one_hot(y, 5).double())
