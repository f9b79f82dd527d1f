"""What every loss keeps to, and torch's own where there is one; tests/config/test_registry.py
checks the signatures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.config import registry
from stresslens.core.attack_base import per_image
from stresslens.plugins.losses.cross_entropy import MANY, cross_entropy
from stresslens.training.batch_loss import weighted

Loss = Callable[[Tensor, Tensor], Tensor]
every = pytest.mark.parametrize("name", registry.names("losses"))
sizes = pytest.mark.parametrize("n", [1, 7, MANY - 1, MANY, MANY + 45])


def named(name: str, **options: Any) -> Loss:
    return per_image(registry.resolve("losses", {name: options}))


def case(n: int, k: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    logits = 3 * torch.randn(n, k, generator=generator, dtype=dtype)
    return logits, torch.randint(k, (n,), generator=generator)


def gradient(loss: Loss, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, y)
    value.backward()
    assert logits.grad is not None
    return value.detach(), logits.grad


@every
@sizes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_loss_is_a_finite_scalar_with_a_gradient(name: str, n: int, dtype: torch.dtype) -> None:
    logits, y = case(n, dtype=dtype)
    before = logits.clone()
    value, slope = gradient(named(name), logits, y)
    assert value.shape == ()
    assert value.dtype == slope.dtype == dtype
    assert value > 0
    assert torch.isfinite(slope).all()
    assert slope.abs().sum() > 0
    assert torch.equal(logits, before)  # nothing is written into what was given


@every
@sizes
def test_a_perfect_answer_costs_least(name: str, n: int) -> None:
    """Logits grow towards the truth from nothing: somewhere on the way the loss is nearly zero, and
    a wrong answer is not."""
    _, y = case(n)
    truth = F.one_hot(y, 5).double()
    answers = [scale * truth for scale in (0.0, 1.0, 40.0)] + [
        40 * (2 * truth - 1)
    ]  # of softmax, of sigmoids
    best = min(float(named(name)(answer, y)) for answer in answers)
    assert 0 <= best < 1e-9
    wrong = F.one_hot((y + 1) % 5, 5).double()
    assert float(named(name)(wrong, y)) > 0.1


@every
@sizes
def test_the_order_of_the_images_does_not_matter(name: str, n: int) -> None:
    logits, y = case(n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    value, slope = gradient(named(name), logits, y)
    shuffled_value, shuffled_slope = gradient(named(name), logits[order], y[order])
    assert torch.allclose(value, shuffled_value, rtol=1e-12)
    assert torch.allclose(slope[order], shuffled_slope, rtol=1e-12, atol=1e-15)


@every
@sizes
def test_a_loss_is_a_mean_over_images(name: str, n: int) -> None:
    logits, y = case(n)
    twice = named(name)(torch.cat([logits, logits]), torch.cat([y, y]))
    assert torch.allclose(twice, named(name)(logits, y), rtol=1e-12)


@every
@sizes
def test_one_hot_labels_are_hard_labels(name: str, n: int) -> None:
    logits, y = case(n)
    hard, soft = gradient(named(name), logits, y), gradient(named(name), logits, F.one_hot(y, 5).double())
    assert torch.allclose(hard[0], soft[0], rtol=1e-12)
    assert torch.allclose(hard[1], soft[1], rtol=1e-12, atol=1e-15)


@every
def test_a_gradient_is_the_slope(name: str) -> None:
    logits, y = case(6, 3)
    assert torch.autograd.gradcheck(lambda z: named(name)(z, y), (logits.requires_grad_(),))


@pytest.mark.breadth
@sizes
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "probabilities"])
def test_cross_entropy_is_torchs(n: int, smoothing: float, soft: bool) -> None:
    logits, y = case(n)
    target = (
        torch.randn(n, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)
        if soft
        else y
    )
    ours = gradient(named("cross_entropy", smoothing=smoothing), logits, target)
    theirs = gradient(lambda z, t: F.cross_entropy(z, t, label_smoothing=smoothing), logits, target)
    assert torch.allclose(ours[0], theirs[0], rtol=1e-12)
    assert torch.allclose(ours[1], theirs[1], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("n", [3, MANY])
def test_cross_entropy_of_large_logits_does_not_overflow(n: int) -> None:
    logits = torch.zeros(n, 4)
    logits[:, 1] = 1e4
    y = torch.zeros(n, dtype=torch.int64)
    assert cross_entropy(logits, y) == 1e4
    assert cross_entropy(logits, y + 1) == 0


@pytest.mark.parametrize("n", [MANY - 1, MANY])
def test_cross_entropy_under_autocast_is_as_precise_as_torchs(n: int) -> None:
    logits, y = case(n, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (loss(logits.bfloat16(), y) for loss in (cross_entropy, F.cross_entropy))
    assert theirs.dtype == torch.float32
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("name", ["focal", "asymmetric", "bce", "mse"])
def test_a_loss_of_bfloat16_logits_is_computed_in_float32(name: str) -> None:
    logits = 6 * torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss, y = registry.resolve("losses", name), torch.arange(64) % 10
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(logits=logits, y=y)
    assert torch.equal(found, loss(logits=logits.float(), y=y))


@sizes
def test_mse_is_torchs_on_one_hot_labels(n: int) -> None:
    logits, y = case(n)
    ours = gradient(named("mse"), logits, y)
    theirs = gradient(lambda z, t: F.mse_loss(z, F.one_hot(t, 5).double()), logits, y)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def shares(n: int) -> Tensor:
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)


@sizes
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_of_gamma_0_is_cross_entropy(n: int, smoothing: float) -> None:
    logits, y = case(n)
    for target in (y, shares(n)):
        ours = gradient(named("focal", gamma=0.0, smoothing=smoothing), logits, target)
        theirs = gradient(lambda z, t: F.cross_entropy(z, t, label_smoothing=smoothing), logits, target)
        assert torch.allclose(ours[0], theirs[0], rtol=1e-12)
        assert torch.allclose(ours[1], theirs[1], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_is_its_equation(gamma: float) -> None:
    logits, y = case(7)
    p = logits.softmax(1).gather(1, y[:, None])
    assert torch.allclose(named("focal", gamma=gamma)(logits, y), (-((1 - p) ** gamma) * p.log()).mean())


def test_focal_of_two_classes_is_torchvisions() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, y = case(9, 2)
    theirs = sigmoid_focal_loss(
        logits[:, 1] - logits[:, 0], y.double(), alpha=-1, gamma=2.0, reduction="mean"
    )
    assert torch.allclose(named("focal")(logits, y), theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_bce_is_timms(smoothing: float, threshold: float | None) -> None:
    from timm.loss import BinaryCrossEntropy

    logits, y = case(9)
    options = {"smoothing": smoothing} | ({} if threshold is None else {"threshold": threshold})
    ours = named("bce", **options)
    assert torch.allclose(ours(logits, y), BinaryCrossEntropy(smoothing, threshold)(logits, y), rtol=1e-12)
    if smoothing == 0:  # timm's takes mixed labels as they are
        mixed = shares(9)
        assert torch.allclose(ours(logits, mixed), BinaryCrossEntropy(0.0, threshold)(logits, mixed))


@pytest.mark.parametrize(
    ("positive", "negative", "margin"), [(0.0, 4.0, 0.05), (1.0, 4.0, 0.05), (0.0, 0.0, 0.0)]
)
def test_asymmetric_is_timms(positive: float, negative: float, margin: float) -> None:
    """timm's is for labels of several classes."""
    from timm.loss import AsymmetricLossMultiLabel

    logits, y = case(9)
    theirs = AsymmetricLossMultiLabel(gamma_neg=negative, gamma_pos=positive, clip=margin)
    ours = named("asymmetric", gamma_positive=positive, gamma_negative=negative, margin=margin)
    expected = theirs(logits, F.one_hot(y, 5).double())
    assert torch.allclose(ours(logits, y).float(), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("focal", {}),
        ("focal", {"gamma": 0.5}),
        ("bce", {}),
        ("asymmetric", {}),
        ("asymmetric", {"gamma_positive": 0.5, "gamma_negative": 0.5}),
    ],
)
@pytest.mark.parametrize("value", [60.0, 1e4])
def test_large_logits_do_not_overflow(name: str, options: dict[str, float], value: float) -> None:
    for sign in (1, -1):
        logits, y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
        logits[:, 1], logits[:, 0] = sign * value, -sign * value
        loss, slope = gradient(named(name, **options), logits, y)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()


@every
def test_a_loss_takes_class_weights(name: str) -> None:
    """`balance: weights` computes the loss of each image by itself."""
    logits, y = case(7)
    loss = registry.resolve("losses", name)
    assert torch.allclose(
        weighted(loss, torch.ones(5, dtype=torch.float64))(logits, y), named(name)(logits, y)
    )
