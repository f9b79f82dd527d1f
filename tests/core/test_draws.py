"""Random numbers that belong to an image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stresslens.core.draws import Draws, mix

QUICK = settings(max_examples=30, deadline=None)
MANY = Draws(7, torch.arange(200_000))


def sequence(draws: Draws) -> list[torch.Tensor]:
    return [
        draws.uniform(),
        draws.uniform(2, 3, low=-1, high=1),
        draws.normal(4),
        draws.integers(9, 2),
        draws.uniform(),
    ]


@QUICK
@given(
    index=st.lists(st.integers(0, 2**40), min_size=1, max_size=12, unique=True),
    seed=st.integers(0, 2**62),
    data=st.data(),
)
def test_an_image_draws_the_same_whatever_stands_beside_it(
    index: list[int], seed: int, data: st.DataObject
) -> None:
    whole = sequence(Draws(seed, torch.tensor(index)))
    rows = data.draw(st.lists(st.sampled_from(range(len(index))), min_size=1, unique=True))
    part = sequence(Draws(seed, torch.tensor(index)[rows]))
    assert all(torch.equal(a[rows], b) for a, b in zip(whole, part))


@pytest.mark.parametrize(
    "keep", [torch.tensor([4, 0, 2]), torch.tensor([True, False, True, False, False, True])], ids=str
)
def test_select_goes_on_at_the_same_place_of_the_streams(keep: torch.Tensor) -> None:
    whole = Draws(3, torch.arange(10, 16))
    whole.uniform(5)
    part = whole.select(keep)
    assert part.index.tolist() == torch.arange(10, 16)[keep].tolist()
    expected = whole.normal(2)
    assert torch.equal(part.normal(2), expected[keep])
    assert torch.equal(part.uniform(), whole.uniform()[keep])


def test_a_selection_moves_on_alone() -> None:
    whole, other = Draws(3, torch.arange(4)), Draws(3, torch.arange(4))
    whole.select(torch.tensor([0])).uniform(100)
    assert torch.equal(whole.uniform(), other.uniform())


def test_every_call_moves_the_streams_on() -> None:
    draws = Draws(0, torch.arange(5))
    assert len(torch.cat([draws.uniform(3).flatten() for _ in range(4)]).unique()) == 60


def test_seeds_and_images_have_streams_of_their_own() -> None:
    first, second = Draws(0, torch.arange(1000)).uniform(4), Draws(1, torch.arange(1000)).uniform(4)
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(correlation) < 0.06  # about four standard errors of 4,000 pairs
    neighbours = torch.corrcoef(torch.stack([first[:-1].flatten(), first[1:].flatten()]))[0, 1]
    assert abs(neighbours) < 0.06
    shifted = torch.corrcoef(torch.stack([first[:-1, 1:].flatten(), first[1:, :-1].flatten()]))[0, 1]
    assert abs(shifted) < 0.07  # image i + 1 is not image i one call later


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-8 / 255, 8 / 255), (2, 5)])
def test_uniform_fills_its_range_evenly(low: float, high: float) -> None:
    x = MANY.uniform(low=low, high=high).double()
    assert x.min() >= low
    assert x.max() < high
    scaled = (x - low) / (high - low)
    error = 1 / math.sqrt(12 * len(x))
    assert abs(scaled.mean() - 0.5) < 4 * error
    assert abs(scaled.var() - 1 / 12) < 0.001
    counts = torch.histc(scaled, 50, 0, 1)
    assert (
        (counts - len(x) / 50).square() / (len(x) / 50)
    ).sum() < 100  # chi square with 49 degrees: p < 1e-5 beyond


def test_the_largest_draw_is_below_the_upper_end(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws(0, torch.arange(1))
    monkeypatch.setattr(draws, "_bits", lambda shape: torch.full((1, *shape), -1))  # every bit set
    for low, high in ((0.0, 1.0), (1.0, 2.0), (2.0, 5.0), (-1.0, 1.0)):
        assert low <= draws.uniform(low=low, high=high).item() < high


def test_normal_has_the_moments_of_the_standard_normal() -> None:
    x = MANY.normal().double()
    n = len(x)
    assert torch.isfinite(x).all()
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs(x.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs(x.pow(3).mean()) < 4 * math.sqrt(15 / n)
    assert abs(x.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert abs((x.abs() < 1.959964).double().mean() - 0.95) < 0.003


@pytest.mark.parametrize("high", [1, 2, 7, 10])
def test_integers_are_even_over_their_range(high: int) -> None:
    x = MANY.integers(high)
    assert x.dtype == torch.int64
    counts = x.bincount(minlength=high).double()
    assert len(counts) == high
    assert (counts / len(x) - 1 / high).abs().max() < 0.005


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4)], ids=str)
def test_shapes_and_types(shape: tuple[int, ...]) -> None:
    draws = Draws(0, torch.arange(6))
    assert (
        draws.uniform(*shape).shape
        == draws.normal(*shape).shape
        == draws.integers(5, *shape).shape
        == (6, *shape)
    )
    assert draws.uniform(*shape).dtype == draws.normal(*shape).dtype == torch.float32


def test_the_numbers_stay_what_they_were() -> None:
    """SplitMix64's published sequence from state 0, through our own stream: a change here changes
    every past result."""
    from stresslens.core.draws import _GOLDEN, _mixed, _signed

    states = torch.tensor([_signed(_GOLDEN * k) for k in (1, 2, 3)])
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _mixed(states).tolist() == [_signed(value) for value in published]
    assert [mix(0), mix(1, 2), mix(42, 0, 7)] == [
        8147104208329303767,
        4621389727991781446,
        5250758336739332380,
    ]
    drawn = Draws(1, torch.tensor([0, 5])).integers(2**62, 2)  # recorded when the first results were
    assert drawn.tolist() == [
        [4067379884195845026, 2361480742076992101],
        [3450983596627707007, 2059110665219884615],
    ]


@QUICK
@given(
    values=st.lists(st.integers(0, 2**40), min_size=1, max_size=4),
    place=st.integers(0, 3),
    bit=st.integers(0, 39),
)
def test_one_bit_in_changes_about_half_the_bits_out(values: list[int], place: int, bit: int) -> None:
    place %= len(values)
    other = [v ^ (1 << bit) if k == place else v for k, v in enumerate(values)]
    changed = (mix(*values) ^ mix(*other)).bit_count()
    assert 0 <= mix(*values) < 2**63
    assert 12 <= changed <= 51  # 31.5 ± 5 standard deviations of a fair coin's 63 tosses


def test_mixing_avalanches_on_average() -> None:
    changed = [
        (mix(seed, epoch) ^ mix(seed, epoch + 1)).bit_count() for seed in range(20) for epoch in range(20)
    ]
    assert abs(sum(changed) / len(changed) - 31.5) < 1
    assert len({mix(seed, epoch) for seed in range(50) for epoch in range(50)}) == 2500
    assert mix(1, 2) != mix(2, 1)
    assert mix(1) != mix(1, 0)
