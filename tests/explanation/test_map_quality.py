"""What a map is worth, on a model whose probability is a sum over pixels, so that the perfect map
is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stresslens as sl
from stresslens.core.attack_base import attacked
from stresslens.core.draws import Draws
from stresslens.core.maps import Maps
from stresslens.explanation.covered_squares import CoveredSquares
from stresslens.explanation.quality import MapFunction, _alike, _partners, _weights_shuffled, map_quality

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


def perfect(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
    """What each pixel adds to the probability of class 0, or takes from that of class 1."""
    sign = 1 - 2 * y[:, None, None]
    return Maps((sign * next(model.parameters()) * (x[:, 0] - 0.5)).detach(), True, "probability")


def images() -> tuple[Tensor, Tensor]:
    return 0.5 + 0.5 * torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)), torch.zeros(
        N, dtype=torch.int64
    )


def test_the_perfect_map_passes_and_tells_every_square() -> None:
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(N))
    with attacked(model):
        maps = perfect(model, x, y, draws)
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
        maps = perfect(model, x, y, draws)
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

    def of_the_image(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        return Maps(x[:, 0], False, "brightness")

    with attacked(model):
        worth = map_quality(of_the_image(model, x, y, draws), of_the_image, model, x, y, draws)
    assert worth.checks["randomisation"].value == pytest.approx(1)
    assert any("weights were shuffled" in text for text in worth.failed)


def test_random_maps_tell_no_more_than_random_orders() -> None:
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(N))

    def noise(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        own = Draws(int(1e6 * float(x.double().sum())), draws.index)
        return Maps(own.normal(*x.shape[2:]), True, "noise")

    with attacked(model):
        worth = map_quality(noise(model, x, y, draws), noise, model, x, y, draws)
    assert "covering or uncovering its highest pixels tells no more than random ones" in worth.failed
    assert "noise that cannot be seen changes it altogether" in worth.failed
    assert worth.checks["infidelity"].value > 0.5


def test_one_image_has_no_interval() -> None:
    model, (x, y) = Additive(), images()
    draws = Draws(0, torch.arange(1))
    with attacked(model):
        worth = map_quality(perfect(model, x[:1], y[:1], draws), perfect, model, x[:1], y[:1], draws)
    assert worth.failed == ()
    assert math.isnan(worth.checks["deletion"].low)
    assert worth.rounded().as_json()["checks"]["deletion"]["low"] is None


def test_rank_correlation_and_shuffling() -> None:
    from scipy.stats import spearmanr

    one, other = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    expected = [spearmanr(a.abs().flatten(), b.abs().flatten()).statistic for a, b in zip(one, other)]
    assert _alike(one, other, False).tolist() == pytest.approx(expected)
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(one, other)]
    assert _alike(one, other, True).tolist() == pytest.approx(expected)
    assert _alike(torch.zeros(1, 2, 2), torch.rand(1, 2, 2), True).tolist() == [0]
    black = torch.zeros(3, 4, 50)  # zero in both: pixels that are black for any weights
    padded = (torch.cat([values, black], 2) for values in (one, other))
    assert _alike(*padded, True).tolist() == pytest.approx(expected)


def test_weights_are_shuffled_and_come_back() -> None:
    model = Additive()
    before = model.w.clone()
    with _weights_shuffled(model):
        assert torch.equal(model.w.flatten().sort().values, before.flatten().sort().values)
        assert not torch.equal(model.w, before)
    assert torch.equal(model.w, before)


def test_partners_are_of_the_same_class_where_there_is_one() -> None:
    y = torch.tensor([0, 1, 0, 2, 0, 3])
    partner = _partners(y)
    assert y[partner][y == 0].tolist() == [0, 0, 0]
    assert sorted(partner[y == 0].tolist()) == [0, 2, 4]
    for labels in (y, torch.tensor([0, 0, 1]), torch.tensor([1, 0])):
        assert not (_partners(labels) == torch.arange(len(labels))).any()


def test_an_empty_map_and_a_model_without_weights() -> None:
    """Sensitivity stays a share where the map is zero; without weights nothing can be shuffled."""
    (x, y), draws = images(), Draws(0, torch.arange(N))

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)

    calls = iter([0.0, *[1.0] * 9])

    def empty(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        return Maps(torch.full((len(x), SIDE, SIDE), next(calls)), False, "nothing")

    worth = map_quality(empty(Bright(), x, y, draws), empty, Bright(), x, y, draws)
    assert "randomisation" not in worth.checks
    assert "shuffled weights" not in worth.checks
    assert worth.checks["sensitivity"].value == pytest.approx(1)
    assert worth.checks["infidelity"].value == pytest.approx(1)


# --- maps that are wrong, of a linear model whose right map is w · x --------------------------------------

Change = Callable[[Tensor], Tensor]


def linear(classes: int = 3, shape: tuple[int, int, int] = (1, 12, 9)) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


def pictures(shape: tuple[int, int, int] = (1, 12, 9), n: int = N) -> Tensor:
    """Half of the pixels are black, others in each image, and more of them at the border."""
    draws = torch.Generator().manual_seed(5)
    _, height, width = shape
    far = (torch.linspace(-1, 1, height)[:, None].abs() + torch.linspace(-1, 1, width).abs()) / 2
    drawn = torch.rand(n, *shape, generator=draws) * (
        torch.rand(n, 1, height, width, generator=draws) > 0.2 + 0.6 * far
    )
    return drawn


def exact(model: nn.Module, x: Tensor, y: Tensor) -> Maps:
    return Maps((model[1].weight[y].view_as(x) * x).sum(1).detach(), True, "logit")


def changed(change: Change) -> MapFunction:
    return lambda model, x, y, draws: Maps(change(exact(model, x, y).values), True, "logit")


def of_image(view: Change, signed: bool = False) -> MapFunction:
    return lambda model, x, y, draws: Maps(view(x.mean(1)), signed, "image")


def edges(x: Tensor) -> Tensor:
    return (x - x.roll(1, 1)).abs() + (x - x.roll(1, 2)).abs()


def middle(x: Tensor) -> Tensor:
    rows, columns = (torch.linspace(-2, 2, side) for side in x.shape[1:])
    return torch.exp(-(rows[:, None] ** 2) - columns**2).expand_as(x)


def fixed_noise(x: Tensor) -> Tensor:
    return torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(1)).expand_as(x)


def mixed(maps: Tensor) -> Tensor:
    order = torch.randperm(maps[0].numel(), generator=torch.Generator().manual_seed(1))
    return maps.flatten(1)[:, order].view_as(maps)


def class_mean(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
    maps = exact(model, x, y).values
    return Maps(torch.stack([maps[y == k].mean(0) for k in y]), True, "logit")


UNTRAINED = linear()
nn.init.normal_(UNTRAINED[1].weight)
PLACE, IMAGE, CLASS, MODEL = "is moved, flipped", "of another image", "for another class", "weights were"
WRONG: dict[str, tuple[MapFunction, str]] = {
    "upside down": (changed(lambda m: m.flip(1)), PLACE),
    "mirrored": (changed(lambda m: m.flip(2)), PLACE),
    "turned": (changed(lambda m: m.flip(1, 2)), PLACE),
    "shifted by one": (changed(lambda m: m.roll(1, 2)), PLACE),
    "shifted by three": (changed(lambda m: m.roll(3, 1)), PLACE),
    "the other sign": (changed(torch.neg), "same values in random places"),
    "of the next image": (changed(lambda m: m.roll(1, 0)), IMAGE),
    "of the first image": (changed(lambda m: m[:1].expand_as(m)), IMAGE),
    "mean of the class": (class_mean, IMAGE),
    "of the next class": (lambda model, x, y, draws: exact(model, x, (y + 1) % 3), CLASS),
    "of an untrained net": (lambda model, x, y, draws: exact(UNTRAINED, x, y), MODEL),
    "shuffled": (changed(mixed), "same values in random places"),
    "noise, fixed": (of_image(fixed_noise), IMAGE),
    "noise, anew": (of_image(torch.rand_like), "noise that cannot be seen"),
    "signed noise, anew": (of_image(torch.randn_like, True), "noise that cannot be seen"),
    "edges": (of_image(edges), MODEL),
    "the image": (of_image(torch.clone), MODEL),
    "the image, signed": (of_image(lambda x: x - 0.5, True), CLASS),
    "constant": (of_image(torch.ones_like), "same values in random places"),
    "zero": (of_image(torch.zeros_like), "no more than random ones"),
    "middle": (of_image(middle), IMAGE),
}


def failed_by(explainer: MapFunction, model: nn.Module, x: Tensor, y: Tensor) -> str:
    draws = Draws(0, torch.arange(len(x)))
    with attacked(model):
        maps = explainer(model, x, y, Draws(0, draws.index))
        return "; ".join(map_quality(maps, explainer, model, x, y, draws).failed)


@pytest.mark.breadth(7)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_map_is_told_and_why(name: str) -> None:
    model, x = linear(), pictures()
    explainer, words = WRONG[name]
    torch.manual_seed(0)
    assert words in failed_by(explainer, model, x, torch.arange(N) % 3)


@pytest.mark.breadth
@pytest.mark.parametrize("n", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("shape", [(1, 12, 9), (3, 8, 8)], ids=str)
@pytest.mark.parametrize(
    "explainer",
    [
        "integrated_gradients",
        {"integrated_gradients": {"start": 0.5}},
        {"integrated_gradients": {"start": "blur"}},
        {"saliency": {"times": "image"}},
        {"occlusion": {"size": 1, "of": "logit"}},
    ],
    ids=str,
)
def test_the_exact_map_of_a_linear_model_passes(
    explainer: str | dict[str, Any], shape: tuple[int, int, int], classes: int, n: int
) -> None:
    """Its difference from a black, grey or blurred image is known pixel by pixel."""
    found = sl.explain(linear(classes, shape).eval(), pictures(shape, n), explainer, check=True)
    assert found.quality is not None
    assert found.quality["failed"] == []


def test_maps_of_the_same_images_are_judged_by_the_same_squares() -> None:
    model, x, y = linear(), pictures(), torch.arange(N) % 3
    draws = Draws(0, torch.arange(N))
    with attacked(model):
        squares = CoveredSquares(model, x, y, draws)
        by_loop = squares.losses[1]  # black, probability
        sums = squares.sums(exact(model, x, y).values)
        clean = model(x).softmax(1)[torch.arange(N), y]
        for k in (0, 7):
            covered = x.clone()
            for row in range(N):
                top, left, size = (int(v[row, k]) for v in (squares._tops, squares._lefts, squares._sizes))
                covered[row, :, top : top + size, left : left + size] = 0
                inside = exact(model, x, y).values[row, top : top + size, left : left + size]
                assert float(sums[row, k]) == pytest.approx(float(inside.sum()), abs=1e-5)
            lost = clean - model(covered).softmax(1)[torch.arange(N), y]
            assert torch.allclose(by_loop[:, k].float(), lost, atol=1e-5)


def test_the_model_is_as_before_also_if_an_explainer_fails_on_shuffled_weights() -> None:
    model, x, y = linear(), pictures(), torch.arange(N) % 3
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def failing(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        if not torch.equal(model[1].weight, before["1.weight"]):
            raise RuntimeError("broken")
        return exact(model, x, y)

    with pytest.raises(RuntimeError, match="broken"):
        failed_by(failing, model, x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
