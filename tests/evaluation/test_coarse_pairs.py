"""The sieve loses no pair: the candidates are those that the projections of all pairs give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stresslens.evaluation import coarse_pairs
from stresslens.evaluation.coarse_pairs import COARSE_ALIKE, candidates, coarse_pictures, sieve_axes
from stresslens.evaluation.picture_alignment import derivatives, shrunk


def smooth(n: int, sides: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """(N, 1, 32, 32) sums of random pictures of these sides, enlarged."""
    random = torch.Generator().manual_seed(seed)
    parts = (
        F.interpolate(torch.randn((n, 1, k, k), generator=random), (32, 32), mode="bicubic") for k in sides
    )
    return sum(parts, torch.zeros(n, 1, 32, 32))


def of_all_pairs(x: torch.Tensor) -> set[tuple[int, int, bool]]:
    """(i, j, mirrored) of all pairs of pictures, i before j, by least squares in float64."""
    found = set()
    target = {flip: coarse_pictures(x.flip(3) if flip else x).double() for flip in (False, True)}
    for i in range(len(x)):
        span = derivatives(shrunk(x[i : i + 1], 16), lambda y: shrunk(y, 8))[0].double()  # (5, 64)
        inverse = torch.linalg.pinv(span)
        for flip, d in target.items():
            left = (d - d @ inverse @ span).square().sum(1)
            alike = torch.nonzero(1 - left >= COARSE_ALIKE**2)[:, 0].tolist()
            found |= {(i, j, flip) for j in alike if j > i}
    return found


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("sides", "many"),
    [
        pytest.param((2, 3), True, id="light and shade"),
        pytest.param((3, 6, 12), False, id="details"),
        pytest.param((32,), False, id="noise"),
    ],
)
def test_no_pair_is_lost(monkeypatch: pytest.MonkeyPatch, sides: tuple[int, ...], many: bool) -> None:
    """Also where most pairs pass the sieve, and the projections of a block are computed at once."""
    monkeypatch.setattr(coarse_pairs, "PARTNERS", 10_000)
    monkeypatch.setattr(coarse_pairs, "COLUMNS", 100)
    x = smooth(300, sides)
    x = torch.cat([x, x[:40].flip(3), x[40:80].roll(1, 3), x[80:120] + 0.1 * smooth(40, (4,), seed=1)])
    expected, coarse = of_all_pairs(x), coarse_pictures(x)
    assert len(expected) >= 80
    assert (len(expected) > 2000) == many
    found = set()
    for start in range(0, len(x), 128):
        i, j, flips = candidates(x[start : start + 128], start, coarse, sieve_axes(coarse))
        found |= set(zip(i.tolist(), j.tolist(), flips.tolist()))
    assert found == expected


def test_few_pictures_have_axes_too() -> None:
    """Those that are no principal axes are orthonormal all the same, and even or odd."""
    x = smooth(3, (4, 8))
    axes = sieve_axes(coarse_pictures(x))
    assert torch.allclose(axes @ axes.T, torch.eye(len(axes)), atol=1e-5)
    even = torch.arange(len(axes)) < coarse_pairs.EVEN
    signs = torch.where(even, 1.0, -1.0)[:, None]
    assert torch.allclose(coarse_pairs.mirrored(axes), signs * axes, atol=1e-6)


def test_each_picture_has_the_most_similar_partners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse_pairs, "PARTNERS", 2)
    one = smooth(1, (4, 8))
    x = torch.cat([one, *(one + noise * smooth(1, (6,), seed=k) for k, noise in enumerate((0.3, 0.1, 0.2)))])
    coarse = coarse_pictures(x)
    i, j, _ = candidates(x, 0, coarse, sieve_axes(coarse))
    assert {(a, b) for a, b in zip(i.tolist(), j.tolist()) if a == 0} == {(0, 2), (0, 3)}
