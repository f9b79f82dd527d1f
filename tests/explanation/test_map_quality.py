"""What a map is worth, on a model whose probability is a sum over pixels, so that the perfect map
is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from stresslens.core.attack_base import attacked
from stresslens.core.draws import Draws
from stresslens.core.maps import Maps
from stresslens.explanation.quality import _alike, _shuffled, map_quality

N, SIDE = 12, 10


class Additive(nn.Module):
    """Class 0 has the probability 0.5 + Σ w·(x - 0.5)."""

    def __init__(self) -> None:
        super().__init__()
        w = torch.zeros(SIDE, SIDE)
        w[3:6, 2:7] = torch.linspace(0.01, 0.05, 15).view(3, 5)
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        p = (0.5 + (self.w * (x[:, 0] - 0.5)).sum((1, 2))).clamp(1e-4, 1 - 1e-4)
        return torch.stack([p, 1 - p], 1).log()


def perfect(model: nn.Module, x: Tensor, draws: Draws) -> Maps:
    return Maps((next(model.parameters()) * (x[:, 0] - 0.5)).detach(), True, "probability")


def images() -> tuple[Tensor, Tensor]:
    return 0.5 + 0.5 * torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), torch.zeros(
        N, dtype=torch.int64
    )


def test_the_perfect_map_passes_and_tells_every_square() -> None:
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(N))
    with attacked(model):
        maps = perfect(model, x, draws)
        worth = map_quality(maps, perfect, model, x, y, draws)
    assert worth.failed == ()
    assert worth.checks["infidelity"].value == pytest.approx(0, abs=1e-4)
    assert worth.checks["deletion"].low > 0
    assert worth.checks["insertion"].low > 0
    assert 0 < worth.checks["sensitivity"].value < 0.2
    assert {e.unit for e in worth.checks.values()} == {"images"}
    assert all(e.n == N for e in worth.checks.values())


def test_deletion_by_hand() -> None:
    """All 15 pixels that count come first: covered, 5 % of the 100 pixels a step, highest share first."""
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(N))
    with attacked(model):
        maps = perfect(model, x, draws)
        worth = map_quality(maps, perfect, model, x, y, draws)
        gains = maps.values.flatten(1).sort(descending=True).values
        lost = torch.stack([gains[:, : 5 * step].sum(1) for step in range(21)], 1)
        own = torch.trapezoid(0.5 + gains.sum(1, keepdim=True) - lost, dim=1) / 20
        gained = torch.trapezoid(0.5 + lost, dim=1) / 20
    random = worth.each["deletion"] + own.double().numpy()
    assert random.mean() == pytest.approx(float(0.5 + gains.sum(1).mean() / 2), abs=0.01)
    assert worth.each["insertion"].mean() == pytest.approx(float(gained.mean()) - random.mean(), abs=0.01)


def test_a_map_of_the_image_alone_is_told_by_shuffled_weights() -> None:
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(N))

    def of_the_image(model: nn.Module, x: Tensor, draws: Draws) -> Maps:
        return Maps(x[:, 0], False, "brightness")

    with attacked(model):
        worth = map_quality(of_the_image(model, x, draws), of_the_image, model, x, y, draws)
    assert worth.checks["randomisation"].value == pytest.approx(1)
    assert any("weights were shuffled" in text for text in worth.failed)


def test_random_maps_tell_no_more_than_random_orders() -> None:
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(N))

    def noise(model: nn.Module, x: Tensor, draws: Draws) -> Maps:
        own = Draws(int(1e6 * float(x.double().sum())), draws.index)
        return Maps(own.normal(*x.shape[2:]), True, "noise")

    with attacked(model):
        worth = map_quality(noise(model, x, draws), noise, model, x, y, draws)
    assert "covering or uncovering its highest pixels tells no more than random ones" in worth.failed
    assert "noise that cannot be seen changes it altogether" in worth.failed
    assert worth.checks["infidelity"].value > 0.5


def test_one_image_has_no_interval() -> None:
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(1))
    with attacked(model):
        worth = map_quality(perfect(model, x[:1], draws), perfect, model, x[:1], y[:1], draws)
    assert worth.failed == ()
    assert math.isnan(worth.checks["deletion"].low)
    assert worth.rounded().as_json()["checks"]["deletion"]["low"] is None


def test_rank_correlation_and_shuffling() -> None:
    from scipy.stats import spearmanr

    one, other = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    expected = [spearmanr(a.abs().flatten(), b.abs().flatten()).statistic for a, b in zip(one, other)]
    assert _alike(one, other).tolist() == pytest.approx(expected)
    assert _alike(torch.zeros(1, 2, 2), torch.rand(1, 2, 2)).tolist() == [0]
    model = Additive()
    shuffled = _shuffled(model)
    assert torch.equal(shuffled.w.flatten().sort().values, model.w.flatten().sort().values)
    assert not torch.equal(shuffled.w, model.w)


def test_an_empty_map_and_a_model_without_weights() -> None:
    """Sensitivity stays a share where the map is zero; without weights nothing can be shuffled."""
    (x, y), draws = images(), Draws(0, torch.arange(N))

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)

    calls = iter([0.0, 1.0, 1.0, 1.0])

    def empty(model: nn.Module, x: Tensor, draws: Draws) -> Maps:
        return Maps(torch.full((len(x), SIDE, SIDE), next(calls)), False, "nothing")

    worth = map_quality(empty(Bright(), x, draws), empty, Bright(), x, y, draws)
    assert "randomisation" not in worth.checks
    assert worth.checks["sensitivity"].value == pytest.approx(1)
