"""Every corruption: images in [0, 1], the same again for the same draws, one image's business
alone, worse with severity."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stresslens.config import registry
from stresslens.core.draws import Draws
from stresslens.plugins.datasets.digits import digits

SEVERITIES = (1, 2, 3, 4, 5)
WAYS = [*registry.names("corruptions"), {"noise": {"kind": "impulse"}}]
every = pytest.mark.parametrize("value", WAYS, ids=str)


def corrupted(value: object, x: Tensor, severity: int, index: Tensor | None = None) -> Tensor:
    index = torch.arange(len(x)) if index is None else index
    found: Tensor = registry.resolve("corruptions", value)(x=x, draws=Draws(3, index), severity=severity)
    return found


def pictures(size: int) -> Tensor:
    """Twelve smooth colour pictures with edges in them."""
    split = digits().train
    return torch.nn.functional.interpolate(
        split.floats(split.images[:36]).reshape(12, 3, 8, 8), (size, size), mode="bicubic"
    ).clamp(0, 1)


@every
@settings(max_examples=12, deadline=None)
@given(
    n=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 3]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    severity=st.sampled_from(SEVERITIES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    flat=st.sampled_from([None, 0.0, 1.0]),
)
def test_images_in_images_out(
    value: object,
    n: int,
    channels: int,
    height: int,
    width: int,
    severity: int,
    dtype: torch.dtype,
    flat: float | None,
) -> None:
    x = torch.rand(
        n, channels, height, width, generator=torch.Generator().manual_seed(height * 41 + width), dtype=dtype
    )
    x = x if flat is None else torch.full_like(x, flat)
    before = x.clone()
    found = corrupted(value, x, severity)
    assert x.equal(before)
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    assert torch.isfinite(found).all()
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


@every
def test_the_same_again_and_whatever_stands_beside_it(value: object) -> None:
    x = pictures(24)
    whole = corrupted(value, x, 3)
    assert whole.equal(corrupted(value, x, 3))
    keep = torch.tensor([7, 2])
    assert torch.allclose(corrupted(value, x[keep], 3, keep), whole[keep], atol=1e-6)


@pytest.mark.breadth(8)
@every
@pytest.mark.parametrize("size", [28, 32, 64, 224])
def test_damage_grows_with_severity(value: object, size: int) -> None:
    x = pictures(size)
    damage = [float((corrupted(value, x, severity) - x).square().mean()) for severity in SEVERITIES]
    assert damage[0] > 0
    assert all(b > 0.97 * a for a, b in pairwise(damage)), damage
    assert damage[4] > 1.4 * damage[0]


@every
def test_what_asks_for_draws_differs_between_images_and_seeds(value: object) -> None:
    x = pictures(32)[:1].repeat(2, 1, 1, 1)
    found = corrupted(value, x, 5)
    random = registry.resolve("corruptions", value).asks_for("draws")
    assert found[0].equal(found[1]) != random


def test_noise_has_its_deviation_and_impulses_their_share() -> None:
    x = torch.full((4, 3, 32, 32), 0.5)
    assert float((corrupted("noise", x, 5) - x).std()) == pytest.approx(0.10, rel=0.03)
    changed = corrupted({"noise": {"kind": "impulse"}}, x, 5)
    assert float((changed != x).float().mean()) == pytest.approx(0.07, rel=0.1)
    assert set(changed.unique().tolist()) == {0.0, 0.5, 1.0}


def test_blur_of_a_point_is_a_gaussian_and_leaves_flat_images_alone() -> None:
    x = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    x[0, 0, 15, 15] = 1
    found = corrupted("blur", x, 5)[0, 0]
    offset = torch.arange(31) - 15
    assert float(found.sum()) == pytest.approx(1)
    for profile in (found.sum(0), found.sum(1)):
        assert float((profile * offset**2).sum()) == pytest.approx(
            1.0, rel=0.01
        )  # the deviation of severity 5 at 32 pixels
    assert torch.allclose(corrupted("blur", torch.full_like(x, 0.3), 5), torch.full_like(x, 0.3))


def test_brightness_and_contrast_by_hand() -> None:
    x = (
        torch.tensor([[0.2, 0.4, 0.0], [0.5, 1.0, 0.0]]).t().reshape(1, 3, 1, 2)
    )  # pixels (.2,.4,0) and (.5,1,0)
    found = corrupted("brightness", x, 5)  # value .4 → .7, 1 → 1
    assert torch.allclose(found.flatten(), torch.tensor([0.35, 0.5, 0.7, 1.0, 0.0, 0.0]))
    assert torch.allclose(corrupted("brightness", torch.zeros(1, 3, 2, 2), 1), torch.full((1, 3, 2, 2), 0.05))
    grey = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    assert torch.allclose(corrupted("contrast", grey, 2).flatten(), torch.tensor([0.25, 0.75]))


def test_pixelation_of_a_third_is_the_mean_of_nine() -> None:
    x = torch.rand(1, 1, 224, 224)
    found = corrupted("pixelation", x, 5)  # 224 → 56: areas of 4 × 4
    blocks = x.reshape(1, 1, 56, 4, 56, 4).mean((3, 5))
    assert torch.allclose(found[..., ::4, ::4], blocks, atol=1e-6)
    assert len(found.unique()) <= 56 * 56


def test_a_jpeg_is_what_pillow_makes_of_it() -> None:
    import io

    import numpy as np
    from PIL import Image

    x = pictures(48)[:1, :1]
    found = corrupted("jpeg", x, 5)
    quality = round(40 + (7 - 40) * float(np.log(48 / 32) / np.log(7)))
    file = io.BytesIO()
    Image.fromarray((x[0, 0] * 255).round().to(torch.uint8).numpy()).save(file, "JPEG", quality=quality)
    theirs = torch.from_numpy(np.array(Image.open(file))).float() / 255
    assert float((found[0, 0] - theirs).abs().mean()) < 0.002
    assert float((found - x).abs().mean()) > 0.005
