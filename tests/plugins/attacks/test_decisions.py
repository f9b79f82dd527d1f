"""Attacks that see predicted classes alone: what they reach, what they may ask, and what they say nothing
about."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import Robustness
from stresslens.config.threat_model import label_of, resolve_threat_model
from stresslens.core.attack_base import attacked, unwatched
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError, Problems
from stresslens.plugins.audits._attack_names import attack_kind

sys.path.insert(0, str(Path(__file__).parent))
from linear import Linear

KINDS: list[tuple[str, Norm]] = [("hop_skip_jump", "linf"), ("hop_skip_jump", "l2"), ("boundary", "l2")]
kinds = pytest.mark.parametrize(("name", "norm"), KINDS)
WHOLE_BOX: dict[Norm, float] = {"linf": 1.0, "l2": 40.0}


class ClassAlone(nn.Module):
    """The class that a model predicts as one-hot scores without a graph, and how often it was asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        with torch.no_grad():
            scores = self.model(x)
        return torch.zeros_like(scores).scatter(1, scores.argmax(1, keepdim=True), 1)


def run(name: str, model: nn.Module, x: Tensor, y: Tensor, ball: Ball, **more: Any) -> Tensor:
    needs = {key: more.pop(key, None) for key in ("target", "start")}
    draws = Draws(more.pop("seed", 0), more.pop("index", torch.arange(len(x))))
    watch = more.pop("watch", unwatched)
    with attacked(model):
        found: Tensor = registry.resolve("attacks", {name: more})(
            model=model, x=x, y=y, ball=ball, draws=draws, watch=watch, **needs
        )
    assert ball.holds(found, x).all()
    return found


def net(classes: int = 4, shape: tuple[int, int, int] = (1, 6, 6)) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        pixels = shape[0] * shape[1] * shape[2]
        model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.Tanh(), nn.Linear(16, classes)).double()
        with torch.no_grad():  # every class occurs
            model[3].bias -= model(torch.rand(200, *shape, dtype=torch.float64)).mean(0)
        return model


def images(n: int, shape: tuple[int, int, int] = (1, 6, 6)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def answers(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def sizes(name: str, norm: Norm, model: nn.Module, x: Tensor, **more: Any) -> Tensor:
    """(n,) the sizes of the perturbations; all of them fool the model."""
    y, ball = answers(model, x), Ball(norm, WHOLE_BOX[norm])
    found = run(name, model, x, y, ball, **more)
    assert (answers(model, found) != y).all()
    return ball.size(found - x)


@pytest.mark.slow
@kinds
def test_the_smallest_perturbation_of_a_linear_model_is_nearly_reached(name: str, norm: Norm) -> None:
    """5,000 queries on 36 pixels: within 5 % of the closed form, and never below it."""
    case = Linear.of(2, tight=False, n=6)
    excess = sizes(name, norm, case.model, case.x, queries=5000) / case.smallest_radii(norm)
    assert (excess >= 1 - 1e-9).all()
    assert excess.median() < 1.05
    assert excess.max() < 1.1


def test_more_pixels_need_a_closer_look_at_the_boundary() -> None:
    """784 pixels in linf: as far from the boundary as with few pixels, every direction had the same answer,
    and the perturbation was up to 4.3 times the closed form."""
    random = torch.Generator().manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(6, 1, 28, 28, generator=random, dtype=torch.float64)
    weight = torch.randn(784, generator=random, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([weight, -weight]))
    least = (x.flatten(1) @ weight).abs() / weight.abs().sum()
    excess = sizes("hop_skip_jump", "linf", model, x, queries=1500) / least
    assert (excess >= 1 - 1e-9).all()
    assert excess.max() < 2.3


@pytest.mark.breadth(1)
@kinds
def test_the_class_alone_is_enough(name: str, norm: Norm) -> None:
    """One-hot scores without a gradient give the same images as the scores."""
    model, x = net(), images(5)
    y, ball = answers(model, x), Ball(norm, WHOLE_BOX[norm])
    hidden = ClassAlone(model)
    shown, alone = (run(name, each, x, y, ball, queries=200) for each in (model, hidden))
    assert torch.equal(shown, alone)
    assert not alone.requires_grad


@pytest.mark.breadth(1)
@kinds
@settings(max_examples=6, deadline=None)
@given(queries=st.integers(1, 90), n=st.integers(1, 4), given_start=st.booleans())
def test_no_image_is_asked_about_more_often_than_allowed(
    name: str, norm: Norm, queries: int, n: int, given_start: bool
) -> None:
    model, x = ClassAlone(net()), images(n)
    y = answers(model, x)
    counts = torch.zeros(n, dtype=torch.int64)
    model.asked = 0

    def watch(rows: Tensor, *_: Any) -> Tensor:
        counts.scatter_add_(0, rows, torch.ones_like(rows))
        return torch.ones(len(rows), dtype=torch.bool)

    start = images(n + 1)[:n] if given_start else None
    run(name, model, x, y, Ball(norm, WHOLE_BOX[norm]), queries=queries, watch=watch, start=start)
    assert model.asked == int(counts.sum())
    assert (counts <= queries).all()
    assert (counts >= min(queries, 1)).all()


@pytest.mark.breadth(1)
@kinds
@pytest.mark.parametrize("seed", [0, 1])
def test_more_queries_never_give_a_larger_perturbation(name: str, norm: Norm, seed: int) -> None:
    """Within one run: the smallest perturbation after q queries falls with q, and is what is returned."""
    model, x = net(), images(6)
    y, ball = answers(model, x), Ball(norm, WHOLE_BOX[norm])
    seen: list[Tensor] = []
    best = torch.full((6,), torch.inf, dtype=torch.float64)

    def watch(rows: Tensor, z: Tensor, logits: Tensor, *_: Any) -> Tensor:
        size = torch.where(logits.argmax(1) != y[rows], ball.size(z - x[rows]), torch.inf)
        best.scatter_reduce_(0, rows, size, "amin")
        seen.append(best.clone())
        return torch.ones(len(rows), dtype=torch.bool)

    found = run(name, model, x, y, ball, queries=400, watch=watch, seed=seed)
    assert torch.allclose(ball.size(found - x), best)
    course = torch.stack(seen)
    assert (course[1:] <= course[:-1]).all()
    assert (course[-1] < 0.8 * course[course.isfinite().all(1)][0]).float().mean() > 0.5


@pytest.mark.breadth(1)
@kinds
def test_an_image_is_attacked_alike_in_any_batch(name: str, norm: Norm) -> None:
    model, x = net(), images(7)
    whole = sizes(name, norm, model, x, queries=300)
    rows = torch.tensor([5, 2])
    part = sizes(name, norm, model, x[rows], queries=300, index=rows)
    assert torch.allclose(whole[rows], part, atol=1e-9)


@pytest.mark.breadth(1)
@kinds
def test_a_target_is_what_is_reached(name: str, norm: Norm) -> None:
    """From an image of the target; without a start, what is not reached comes back as it is."""
    model, x = net(), images(12)
    y, ball = answers(model, x), Ball(norm, WHOLE_BOX[norm])
    start = images(13)[1:]
    target = answers(model, start)
    found = run(name, model, x, y, ball, queries=200, target=target, start=start)
    assert torch.equal(answers(model, found), target)
    assert len(target[target != y].unique()) > 1
    assert (ball.size(found - x) <= ball.size(start - x)).all()
    away = (y + 1) % 4
    found = run(name, model, x, y, ball, queries=200, target=away, tries=5)
    reached = answers(model, found) == away
    assert torch.equal(found[~reached], x[~reached])


@kinds
def test_a_start_is_where_it_begins(name: str, norm: Norm) -> None:
    """A model that only one corner of the box fools: random points do not find it, the start does."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            inside = (x.flatten(1) > 0.7).all(1) & (x.flatten(1)[:, 0] > 0.999)
            return torch.stack([1 - inside.to(x), inside.to(x)], 1)

    x = torch.full((2, 1, 6, 6), 0.5, dtype=torch.float64)
    y, ball = torch.zeros(2, dtype=torch.int64), Ball(norm, WHOLE_BOX[norm])
    start = torch.full_like(x, 0.9)
    start[:, :, 0, 0] = 1.0
    found = run(name, Corner(), x, y, ball, queries=100, start=start)
    assert (answers(Corner(), found) == 1).all()
    # an image that is not adversarial itself shows the way: as the engine's projected start does
    between = x + 0.5 * (start - x)
    found = run(name, Corner(), x, y, ball, queries=100, start=between)
    assert (answers(Corner(), found) == 1).all()


@kinds
def test_what_cannot_be_attacked_comes_back_and_is_not_asked_about_for_ever(name: str, norm: Norm) -> None:
    """One class always; radius 0; one query."""
    model, x = ClassAlone(net()), images(3)
    y = answers(model, x)

    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]], dtype=x.dtype).expand(len(x), -1)

    stuck = ClassAlone(One())
    zeros = torch.zeros_like(y)
    assert torch.equal(run(name, stuck, x, zeros, Ball(norm, 0.5), queries=5000, tries=20), x)
    assert stuck.asked == 3 * 21  # the image and each try
    model.asked = 0
    assert torch.equal(run(name, model, x, y, Ball(norm, 0.0), queries=5000), x)
    assert torch.equal(run(name, model, x, y, Ball(norm, 0.5), queries=1), x)
    assert model.asked == 6


@kinds
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 1), (3, 5, 7)], ids=str)
def test_wrong_images_cost_one_query_whatever_their_shape(
    name: str, norm: Norm, shape: tuple[int, int, int]
) -> None:
    model, x = ClassAlone(net(shape=shape)), images(4, shape)
    y = (answers(model, x) + 1) % 4
    model.asked = 0
    assert torch.equal(run(name, model, x, y, Ball(norm, 0.5), queries=50), x)
    assert model.asked == 4
    right = answers(model, x)
    run(name, model, x, right, Ball(norm, 0.5), queries=50)


@pytest.mark.breadth(1)
@kinds
def test_a_small_memory_changes_nothing(name: str, norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = net(), images(6)
    whole = sizes(name, norm, model, x, queries=200)
    monkeypatch.setenv("STRESSLENS_MEMORY", "40KB")
    assert torch.allclose(sizes(name, norm, model, x, queries=200), whole, atol=1e-9)


@kinds
def test_audits_know_it_as_an_attack_without_gradients(name: str, norm: Norm) -> None:
    """So an image that it alone breaks, after attacks with gradients, is a sign that these mislead."""
    assert attack_kind(label_of({name: {"queries": 500}})) == "black box"


@pytest.mark.parametrize(
    ("name", "norm"), [("hop_skip_jump", "l1"), ("boundary", "linf"), ("boundary", "l1")]
)
def test_another_norm_is_refused_before_anything_is_attacked(name: str, norm: Norm) -> None:
    with pytest.raises(Problems, match=f"{name} is an attack of .*, not of {norm}"):
        resolve_threat_model(Robustness(radii=0.1, norm=norm, protocol=[name]), base=Path.cwd())
    x = images(1)
    with pytest.raises(ConfigError, match=f"not of {norm}"):
        run(name, net(), x, torch.zeros(1, dtype=torch.int64), Ball(norm, 0.1))
