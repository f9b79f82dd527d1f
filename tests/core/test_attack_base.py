"""What attacks stand on: the model held still, gradients, who is left, the best so far, targets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from stresslens.core.attack_base import (
    COMPACT_BELOW,
    MULTIPLE,
    BatchedModel,
    Best,
    agrees_with_itself,
    apart,
    attacked,
    batched_mean_logits,
    gradient,
    likely_others,
    margins,
    narrowed,
    shortfall,
    targets_of,
)
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError


def per_image(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y, reduction="none")


def case(n: int = 7) -> tuple[nn.Module, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)).double()
        return model, torch.rand(n, 3, 2, 2, dtype=torch.float64), torch.arange(n) % 4


def test_a_gradient_is_each_images_own() -> None:
    """As by one backward pass for each; a mean over the batch gives the same, and so do pieces."""
    model, x, y = case()
    logits, values, grad = gradient(model, x, per_image, y)
    for i in range(len(x)):
        point = x[i : i + 1].clone().requires_grad_()
        (expected,) = torch.autograd.grad(F.cross_entropy(model(point), y[i : i + 1]), point)
        assert torch.allclose(expected, grad[i : i + 1])
    assert torch.allclose(values, per_image(model(x), y))
    assert torch.allclose(logits, model(x))
    assert torch.allclose(gradient(model, x, F.cross_entropy, y)[2], grad)
    for found, whole in zip(gradient(BatchedModel(model, batch=3), x, per_image, y), (logits, values, grad)):
        assert torch.allclose(found, whole)
    assert all(p.grad is None for p in model.parameters())


def test_a_gradient_that_is_not_finite_or_not_there_is_zero() -> None:
    x = torch.zeros(2, 1, 1, 1)

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).sqrt() * torch.tensor([1.0, -1.0])

    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 2)

    for model in (Root(), Detached()):
        assert torch.equal(
            gradient(model, x, per_image, torch.zeros(2, dtype=torch.int64))[2], torch.zeros_like(x)
        )


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + torch.randn(len(x), x[0].numel())


def test_random_models_are_averaged_over_their_passes() -> None:
    x = torch.zeros(2000, 2, 1, 1)
    with attacked(nn.Identity()):
        once, often = (
            batched_mean_logits(Noisy(), x),
            batched_mean_logits(BatchedModel(Noisy(), passes=25), x),
        )
        averaged = gradient(
            BatchedModel(Noisy(), passes=25), x, lambda z, y: z[:, 0], torch.zeros(2000, dtype=torch.int64)
        )[0]
    assert float(once.std()) == pytest.approx(1, abs=0.05)
    assert float(often.std()) == pytest.approx(0.2, abs=0.02)
    assert float(averaged.std()) == pytest.approx(0.2, abs=0.02)


def test_a_random_model_draws_the_same_each_time_it_is_attacked() -> None:
    x = torch.zeros(3, 2, 1, 1)
    found = []
    for seed in (0, 0, 1):
        torch.rand(1)
        with attacked(Noisy(), seed):
            found.append(batched_mean_logits(Noisy(), x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class Jittering(nn.Module):
    """Logits (0, x), and a little noise on those of images below 1/2 alone."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(1)
        noise = self.size * torch.rand(len(x), dtype=x.dtype) * (score < 0.5)
        return torch.stack([torch.zeros_like(score), score * torch.where(score < 0.5, 1, 1e6) + noise], 1)


def test_a_model_that_is_random_on_images_of_small_logits_disagrees_with_itself() -> None:
    """However large the logits of others in the batch are."""
    x = torch.tensor([0.1, 0.9]).expand(3, 4, 1, 2).permute(0, 3, 1, 2).reshape(6, 1, 2, 2).contiguous()
    assert agrees_with_itself(Jittering(0.0), x) == 0
    assert 0.01 < agrees_with_itself(Jittering(0.1), x) < 2
    assert agrees_with_itself(Jittering(0.0), x[1:2], passes=2) == 0


def test_answers_lie_apart_by_a_share_of_each_images_range() -> None:
    first = torch.tensor([[0.0, 10.0], [-1.0, 1.0], [0.0, 1.0]])
    second, third = (
        first + torch.tensor([[1.0, 0], [0, 0.2], [0, 0]]),
        first + torch.tensor([[0.0, -2], [0, 0], [0, torch.nan]]),
    )
    torch.testing.assert_close(apart(first, second, third), torch.tensor([0.2, 0.1, torch.inf]))


def test_steering_computes_in_its_precision_and_answers_in_the_images() -> None:
    model, x, _ = case()
    steered = BatchedModel(model.bfloat16(), memory_format=torch.channels_last)
    assert batched_mean_logits(steered, x.float()).dtype == torch.float32


def test_an_attacked_model_is_in_evaluation_mode_and_asks_for_no_gradient() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 2, 1))
    model[2].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with attacked(model):
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        model[0].train()  # a defence that switches itself back
        model(torch.rand(4, 3, 2, 2))
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_margins_hold_for_negative_logits() -> None:
    """max(one-hot·z), as some take it, is 0 where every logit is negative."""
    logits, y = torch.tensor([[3.0, 2.0, 5.0, 1.0], [1.0, 4.0, 2.0, 0.0]]), torch.tensor([0, 1])
    assert margins(logits, y).tolist() == [-2.0, 2.0]
    assert torch.allclose(margins(logits - 100, y), margins(logits, y))


def test_what_a_targeted_attack_lowers() -> None:
    """First that the image is no longer taken for its class, then how far the target is from
    ranking first, to full precision."""
    y, target = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1])
    logits = torch.tensor([[5.0, 4.9999, 0.0], [2.0, 0.0, 3.0], [0.0, 2.0, 1.0]])
    short = shortfall(logits, y, target)
    assert short[2] < short[1] < short[0]
    closer = shortfall(torch.tensor([[5.0, 4.9998, 0.0]]), y[:1], target[:1])
    assert closer > short[0]


def test_the_best_of_several_restarts_is_kept() -> None:
    """Also of one image named several times, and never the last for being the last."""
    x = torch.zeros(2, 1, 1, 1)
    best = Best(x, torch.tensor([0, 0]), None)
    z = torch.tensor([1.0, 2.0, 3.0]).reshape(-1, 1, 1, 1)
    best.update(torch.tensor([0, 0, 1]), z, torch.tensor([[0.0, 1.0], [0.0, 5.0], [2.0, 0.0]]))
    assert best.x_adv.flatten().tolist() == [2.0, 3.0]
    best.update(torch.tensor([1, 0]), 10 * z[:2], torch.tensor([[1.0, 0.0], [0.0, 4.0]]))
    assert best.x_adv.flatten().tolist() == [2.0, 10.0]


def test_an_image_without_an_answer_is_the_best() -> None:
    """But not one that is NaN itself, and not where the attack has a target."""
    x, y, none = torch.zeros(2, 1, 1, 1), torch.tensor([0, 0]), torch.full((2, 2), torch.nan)
    for target, kept in ((None, [7.0, 8.0]), (torch.tensor([1, 1]), [1.0, 2.0])):
        best = Best(x, y, target)
        rows, z = torch.arange(2), torch.tensor([1.0, 2.0]).reshape(-1, 1, 1, 1)
        best.update(rows, z, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        best.update(rows, z * torch.nan, none)
        best.update(rows, z + 6, none)
        assert best.x_adv.flatten().tolist() == kept


def masked_by(
    value: float, *, classes: int = 4, masked: int = 1, noise: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Logits of 32 images in two passes, the last `masked` classes masked."""
    generator = torch.Generator().manual_seed(0)
    first = 3 * torch.randn(32, classes, generator=generator)
    second = first + noise * torch.randn(32, classes, generator=generator)
    for logits in (first, second):
        logits[:, classes - masked :] += value
    return first, second


@pytest.mark.parametrize("value", [-1e4, -1e9, -torch.finfo(torch.float32).max, -torch.inf], ids=str)
@pytest.mark.parametrize(("classes", "masked"), [(3, 1), (4, 1), (4, 2), (100, 1), (100, 90)])
def test_masked_classes_hide_no_randomness(value: float, classes: int, masked: int) -> None:
    assert (apart(*masked_by(value, classes=classes, masked=masked)) > 1e-3).all()
    assert (apart(*masked_by(value, classes=classes, masked=masked, noise=3e-7)) < 1e-4).all()


def test_a_class_that_is_masked_in_one_pass_only_is_random() -> None:
    first = torch.tensor([[1.0, 2.0, -1e9], [1.0, 2.0, 0.5], [1.0, 2.0, -torch.inf]])
    assert (apart(first, first.roll(1, 0)) > 0.1).all()


def test_no_answer_twice_is_the_same_answer() -> None:
    first, second = torch.tensor([[0.0, torch.nan], [0.0, 1.0]]), torch.tensor([[torch.nan, 1.0], [0.0, 1.0]])
    assert apart(first, second).tolist() == [0.0, 0.0]
    assert apart(first, second.flip(0)).tolist() == [torch.inf, torch.inf]


def test_rounding_of_nearly_equal_logits_is_no_randomness() -> None:
    first = torch.tensor([[1.0, 0.999999, -30.0], [1e-4, 0.0, -6.0], [2.0, 1.0, 0.0], [-3.0, 1.0, 2.0]])
    assert (apart(first, first * (1 + 3e-7) + 3e-7) < 1e-4).all()


def test_the_least_likely_class_is_a_possible_one() -> None:
    logits, y = torch.tensor([[3.0, 1.0, 0.0, -torch.inf], [0.0, 1.0, 2.0, 3.0]]), torch.tensor([0, 0])
    target = targets_of("least_likely", logits, y, Draws(0, torch.arange(2)))
    assert target is not None
    assert target.tolist() == [2, 1]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=0, max_size=150))
def test_narrowing_keeps_whoever_is_left(kept: list[bool]) -> None:
    keep = torch.tensor(kept, dtype=torch.bool)
    go_on = narrowed(keep)
    if not any(kept):
        assert go_on is not None
        assert len(go_on) == 0
    elif go_on is not None:
        assert len(go_on) % MULTIPLE == 0
        assert len(go_on) < len(keep)
        assert go_on.diff().gt(0).all()
        assert set(keep.nonzero().flatten().tolist()) <= set(go_on.tolist())
        assert len(go_on) < sum(kept) + MULTIPLE
    else:
        assert sum(kept) >= COMPACT_BELOW * len(kept) or -(-sum(kept) // MULTIPLE) * MULTIPLE >= len(kept)


def test_the_likely_others_are_in_order_and_never_the_label() -> None:
    logits, y = torch.tensor([[3.0, 2.0, 5.0, 1.0]]), torch.tensor([2])
    assert [int(t) for t in likely_others(logits, y)] == [0, 1, 3]
    assert [int(t) for t in likely_others(logits, y, 1)] == [0]
    assert len(likely_others(torch.rand(3, 20), torch.zeros(3, dtype=torch.int64))) == 9


def test_targets() -> None:
    logits, y, draws = (
        torch.tensor([[3.0, 2.0, 1.0], [0.0, 2.0, 1.0]]),
        torch.tensor([0, 0]),
        Draws(0, torch.arange(2)),
    )
    assert targets_of(None, logits, y, draws) is None
    for rule, expected in (("least_likely", [2, 2]), (1, [1, 1]), (torch.tensor([2, 1]), [2, 1])):
        found = targets_of(rule, logits, y, draws)
        assert found is not None
        assert found.tolist() == expected
    found = targets_of(
        "random", torch.rand(500, 3), torch.zeros(500, dtype=torch.int64), Draws(0, torch.arange(500))
    )
    assert found is not None
    assert set(found.tolist()) == {1, 2}


@pytest.mark.parametrize(
    "rule", ["least", 3, -1, torch.tensor([0.5, 1]), torch.tensor([1, 1, 1]), torch.zeros(2, 1)]
)
def test_targets_that_cannot_be_are_refused(rule: object) -> None:
    with pytest.raises(ConfigError, match="target"):
        targets_of(rule, torch.rand(2, 3), torch.zeros(2, dtype=torch.int64), Draws(0, torch.arange(2)))
