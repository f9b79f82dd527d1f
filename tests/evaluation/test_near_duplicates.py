"""The search for near duplicates finds copies that are changed and moved, and no look-alikes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from checked_data import found, photographs, with_images

from stresslens.core.data import Data
from stresslens.evaluation import coarse_pairs
from stresslens.evaluation.data_check import check_data
from stresslens.evaluation.near_duplicates import COPIES, near_pairs, planted_copies, small_pictures

NO_PAIRS = np.empty((0, 2), np.int64)


def detailed(n: int, seed: int = 0) -> torch.Tensor:
    """(N, 1, 40, 40) grey pictures with details of all sizes, as photographs have them."""
    random = torch.Generator().manual_seed(seed)
    parts = (
        torch.nn.functional.interpolate(torch.randn((n, 1, k, k), generator=random), (40, 40), mode="bicubic")
        / k
        for k in (3, 6, 12, 24)
    )
    x = sum(parts, torch.zeros(n, 1, 40, 40)).flatten(1)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    return ((x - low) / (high - low)).view(n, 1, 40, 40)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_each_kind_are_found_by_the_data_check(kind: str) -> None:
    images = detailed(120)
    copies = COPIES[kind](images[:24])
    pixels = (255 * torch.cat([images, copies])).to(torch.uint8)
    data = Data.from_arrays(pixels, torch.arange(144) % 2, validation=0.2, test=0.2)
    findings = [finding for finding in check_data(data) if "near duplicates" in finding.audit]
    named = {item for finding in findings for item in finding.items}
    assert len(named) >= 22, findings
    places = {name: split.images for name, split in data.splits.items()}
    original = {bytes(pixel.numpy().tobytes()): k % 120 for k, pixel in enumerate(pixels)}
    for item in named:  # each pair is an image with its own copy
        sides = [side.rstrip("]").split("[") for side in item.split(" = ")]
        whose = {original[places[name][int(k)].numpy().tobytes()] for name, k in sides}
        assert len(whose) == 1


def test_all_pairs_are_compared_in_every_order() -> None:
    """The blocks of the search lose no pair, and the order of the images does not matter."""
    images = detailed(300)
    small = small_pictures(torch.cat([images, images[:150].flip(3), images[150:].roll(2, 3)]))
    pairs = {tuple(pair) for pair in near_pairs(small, NO_PAIRS)}
    assert len(pairs & {(k, 300 + k) for k in range(300)}) >= 295
    order = np.random.default_rng(0).permutation(600)
    again = {tuple(sorted(order[list(pair)])) for pair in near_pairs(small[order], NO_PAIRS)}
    assert len(pairs ^ again) <= 6  # the first picture's derivatives are not the second's


def test_different_pictures_are_not_named() -> None:
    assert len(near_pairs(small_pictures(detailed(400, seed=1)), NO_PAIRS)) == 0


def test_pictures_that_share_only_light_and_shade_are_not_named() -> None:
    """A bright sky above a dark sea, each with another coast."""
    images = detailed(60, seed=3)
    sky = 1 - torch.arange(40)[None, None, :, None] / 40
    small = small_pictures(0.8 * sky + 0.2 * images)
    assert len(near_pairs(small, NO_PAIRS)) == 0
    flat = torch.nn.functional.avg_pool2d(torch.from_numpy(small)[:, None].float(), 2).flatten(1)
    assert np.median(np.corrcoef(flat.numpy())) > 0.9  # though they look alike when they are small


@pytest.mark.slow
def test_the_share_of_planted_copies_that_is_found_is_measured() -> None:
    for kind, planted, n in planted_copies(detailed(50)):
        assert (n, planted >= 45) == (50, True), kind
    assert planted_copies(torch.zeros(5, 1, 8, 8)) == []
    (none,) = (
        finding for finding in check_data(photographs()) if finding.audit == "near duplicates across splits"
    )
    assert "of 200 copies of each kind" in none.evidence
    assert " mirrored" in none.evidence


def test_copies_that_were_changed_beyond_recognition_are_not_counted_as_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(COPIES, "upside down", lambda x: x.flip(2))
    assert {kind: found for kind, found, _ in planted_copies(detailed(50))}["upside down"] == 0


@pytest.mark.slow
def test_many_copies_of_one_image_are_all_named() -> None:
    images = detailed(1).repeat(200, 1, 1, 1)
    random = torch.Generator().manual_seed(0)
    images += 0.02 * torch.randn(images.shape, generator=random)
    pairs = near_pairs(small_pictures(torch.cat([detailed(200, seed=2), images])), NO_PAIRS)
    assert set(pairs.flatten()) == set(range(200, 400))
    assert len(pairs) <= 200 * coarse_pairs.PARTNERS


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x: (x.float() * 0.8 + 20).to(torch.uint8), id="darker"),
        pytest.param(
            lambda x: (
                x.int() + torch.randint(-6, 7, x.shape, generator=torch.Generator().manual_seed(0))
            ).clamp(0, 255),
            id="noise",
        ),
        pytest.param(
            lambda x: torch.nn.functional.interpolate(
                torch.nn.functional.interpolate(x.float(), (24, 24), mode="bilinear"),
                (32, 32),
                mode="bilinear",
            ),
            id="scaled down and up",
        ),
    ],
)
def test_near_duplicates(change: object) -> None:
    data = photographs()
    assert isinstance(data.train.images, torch.Tensor)
    near = change(data.train.images[30:40]).to(torch.uint8)  # type: ignore[operator]
    signs = found(with_images(data, "test", list(range(10)), near, data.train.labels[30:40]))
    across = signs["near duplicates across splits"]
    assert len(across.items) >= 9
    assert set(across.items) <= {f"test[{k}] = train[{30 + k}]" for k in range(10)}
    assert "exact duplicates across splits" not in signs


def test_a_camera_that_does_not_move() -> None:
    """Every picture is nearly the same: copies cannot be told, and looking for them takes no longer."""
    random = torch.Generator().manual_seed(0)
    background = torch.randint(0, 256, (1, 3, 32, 32), generator=random)
    images = (
        (background + torch.randint(-9, 10, (400, 3, 32, 32), generator=random)).clamp(0, 255).to(torch.uint8)
    )
    data = Data.from_arrays(images, torch.arange(400) % 2)
    (near,) = [finding for finding in check_data(data) if finding.audit.startswith("near duplicates")]
    assert near.status == "not checked"


def test_look_alikes_are_not_called_copies(small: Data) -> None:
    (near,) = [finding for finding in check_data(small) if finding.audit == "near duplicates"]
    assert near.status == "not checked"
    assert "cannot be distinguished from look-alikes" in near.evidence
