"""A batch under attack: only what a float32 pass confirms, inside ball and box, counts; and what
went wrong is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.registry import Bound
from stresslens.core.attack_base import BatchedModel, attacked
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.evidence import Trace
from stresslens.robustness.attack_batch import AttackBatch, _Watch, verdict_model
from stresslens.robustness.audit import audit

BALL = Ball("linf", 0.1)


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 4))


def images(n: int = 50) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(n))


def search_of(net: nn.Module, x: Tensor, **options: Any) -> AttackBatch:
    with torch.no_grad():
        y = net(x).argmax(1)
    return AttackBatch(verdict_model(net), x, y, options.pop("ball", BALL), **options)


def bound(function: Callable[..., Tensor]) -> Bound:
    return registry.bind("attacks", function, {})


def attempt(search: AttackBatch, net: nn.Module, attack: Any, **options: Any) -> Any:
    attack = attack if isinstance(attack, Bound) else registry.resolve("attacks", attack)
    with attacked(net):
        return search.attack_unbroken(
            attack, net, Draws(0, torch.arange(len(search.x))), name="it", **options
        )


def holds(search: AttackBatch, net: nn.Module) -> bool:
    """Every image that counts as broken is, and lies inside."""
    with torch.no_grad():
        wrong = net(search.x_adv).argmax(1) != search.y
    return bool((wrong & search.ball.holds(search.x_adv, search.x))[search.is_adversarial].all())


def test_each_attempt_goes_on_with_those_that_are_left() -> None:
    net, x = model(), images()
    search = search_of(net, x)
    left = len(x)
    for attack in ("noise", "fgsm", "pgd", "apgd"):
        trace, returned = attempt(search, net, attack)
        assert trace.n == left
        assert returned.shape == x.shape
        left -= trace.broke
        assert left == int((~search.is_adversarial).sum())
        assert holds(search, net)
        assert (search.steps[search.is_adversarial] > 0).all()
        assert trace.outside == trace.silent == 0
    assert 0 < left < len(x)


@pytest.mark.slow
def test_dropping_changes_no_verdict_and_saves_work() -> None:
    net, x = model(), images(200)
    dropping, whole = search_of(net, x), search_of(net, x, drop=False)
    traces = [attempt(search, net, "apgd")[0] for search in (dropping, whole)]
    assert torch.equal(dropping.is_adversarial, whole.is_adversarial)
    assert traces[0].gradients < 0.7 * traces[1].gradients
    assert traces[1].gradients > 100 * len(x)


def test_what_steers_the_search_decides_nothing() -> None:
    """A model in bfloat16, and one that answers nonsense: the verdict is that of the float32 judge."""
    net, x = model(), images()
    search = search_of(net, x)
    attempt(search, BatchedModel(model().bfloat16()), "pgd")
    assert search.is_adversarial.any()
    assert holds(search, net)

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -10 * net(x)

    search = search_of(net, x, ball=Ball("linf", 0.0))
    trace, _ = attempt(search, Wrong(), "pgd")
    assert trace.broke == 0
    assert not search.is_adversarial.any()


def outside(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return 1 - x


def dropping_some(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return x[1:]


def beyond_the_box(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return x - 0.1


def not_a_number(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return x * torch.nan


def test_images_outside_ball_or_box_break_nothing() -> None:
    net, x = model(), images()
    for attack in (outside, beyond_the_box, not_a_number):
        search = search_of(net, x)
        trace, returned = attempt(search, net, bound(attack))
        assert trace.outside > 0
        assert trace.broke <= trace.n - trace.outside
        assert holds(search, net)
        assert returned.shape == x.shape
    search = search_of(net, x)
    trace, _ = attempt(search, net, bound(outside))
    assert trace.excess > 2


def test_dropped_images_are_told() -> None:
    net, x = model(), images()
    with pytest.raises(ConfigError, match=r"returned shape \(49, 1, 6, 6\)"):
        attempt(search_of(net, x), net, bound(dropping_some))


def forgetful(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Looks at the steps of another attack and returns what it was given."""
    with torch.enable_grad():
        for step in (0.03, 0.06, 0.1):
            point = x.clone().requires_grad_()
            (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(point), y), point)
            with torch.no_grad():
                model((x + step * grad.sign()).clamp(0, 1))
    return x


def test_silent_success_is_told_of_an_attack_that_shows_nothing() -> None:
    """Its passes are listened to."""
    net, x = model(), images()
    search = search_of(net, x)
    trace, returned = attempt(search, net, bound(forgetful))
    assert trace.silent == trace.broke == int(search.is_adversarial.sum()) > 0
    assert torch.equal(returned, x)
    assert holds(search, net)


def test_gradients_of_zero_are_counted() -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model()(x.round())

    net, x = Rounded(), images()
    trace, _ = attempt(search_of(net, x), net, {"pgd": {"random_start": False, "steps": 3}})
    assert trace.zero_at_start == trace.n
    assert trace.zero_on_path == trace.n - trace.broke
    trace, _ = attempt(search_of(model(), x), model(), "pgd")
    assert trace.zero_at_start == trace.zero_on_path == 0


def test_the_mean_loss_of_a_batch_is_not_followed() -> None:
    """Its make-up changes as images drop out, so that it says nothing of any one of them."""
    net, x = model(), images()
    trace, _ = attempt(search_of(net, x, ball=Ball("linf", 0.001)), net, {"pgd": {"steps": 30}})
    assert trace.gradients > 600
    assert (trace.followed, trace.rising) == (0, 0)


def test_a_loss_of_each_image_is_followed_as_it_is() -> None:
    net, x = model(), images()
    search = search_of(net, x, drop=False)
    watch, loss = _Watch(search, torch.arange(50), Trace("it", {}, 0.1, 50)), torch.rand(50)
    watch(torch.arange(50), x, net(x).detach(), loss, torch.ones_like(x))
    assert watch.losses[0][1] is loss


def test_whose_loss_still_rises_is_counted() -> None:
    """Every other image's loss stops rising half-way."""
    net, x = model(), images(24)
    search = search_of(net, x, drop=False)
    rows, left = torch.arange(24), torch.ones(24, dtype=torch.bool)
    watch = _Watch(search, rows, Trace("it", {}, 0.1, 24))
    for step in range(30):
        loss = torch.where(rows % 2 == 0, min(step, 15), step) - 40.0 + 0.001 * rows
        watch(rows, x, net(x).detach(), loss, torch.ones_like(x))
    assert watch.rising(left) == (12, 24)
    assert watch.rising(rows < 4) == (2, 4)


def test_a_trace_names_every_option_and_the_passes() -> None:
    net, x = model(), images()
    trace, _ = attempt(search_of(net, x), BatchedModel(net, passes=3), {"pgd": {"step_size": 1e-5}})
    assert trace.options["steps"] == 40
    assert (trace.options["step_size"], trace.options["loss"], trace.passes) == (1e-5, "cross_entropy", 3)
    assert Trace.from_json(trace.as_json()) == trace
    (found,) = audit(trace=[trace], only=["short steps"])
    assert found.severity == "serious"
    assert "40 steps reach" in found.evidence


def test_only_the_target_counts_where_it_is_aimed_at() -> None:
    net, x = model(), images()
    with torch.no_grad():
        target = net(x).topk(2).indices[:, 1]
    for targeted_success in (False, True):
        search = search_of(net, x, target=target, targeted_success=targeted_success, ball=Ball("linf", 0.3))
        attempt(search, net, "pgd")
        assert search.is_adversarial.any()
        if targeted_success:
            with torch.no_grad():
                assert (net(search.x_adv).argmax(1) == target)[search.is_adversarial].all()


def test_nothing_left_is_no_trouble() -> None:
    net, x = model(), images(3)
    search = search_of(net, x)
    search.is_adversarial[:] = True
    trace, returned = attempt(search, net, "apgd")
    assert trace.n == trace.broke == 0
    assert torch.equal(returned, x)


def test_each_image_has_its_own_radius() -> None:
    """A curve's bisection attacks images at different radii together."""
    net, x = model(), images(60)
    eps = torch.linspace(0, 0.3, 60)
    search = search_of(net, x, ball=Ball("linf", eps))
    for attack in ({"apgd": {"loss": "ce"}}, "apgd", "fab", {"square": {"queries": 50}}):
        attempt(search, net, attack)
    assert holds(search, net)
    alone = []
    for i in (10, 30, 50):
        one = search_of(net, x[i : i + 1], ball=Ball("linf", float(eps[i])))
        for attack in ("apgd", "fab"):
            with attacked(net):
                one.attack_unbroken(
                    registry.resolve("attacks", attack), net, Draws(0, torch.tensor([i])), name="it"
                )
        alone.append(bool(one.is_adversarial))
    assert alone == search.is_adversarial[torch.tensor([10, 30, 50])].tolist()


def test_a_random_judge_is_averaged() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) + torch.randn(len(x), 36)

    with attacked(Noisy()):
        spread = verdict_model(Noisy(), passes=25)(torch.zeros(500, 1, 6, 6)).std()
    assert float(spread) == pytest.approx(0.2, abs=0.02)
