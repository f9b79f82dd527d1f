"""The l1 projection where the room of pixels adds up to the radius exactly, so that the sum it
looks for is level for a while."""

from __future__ import annotations

import pytest
import torch

from stresslens.core.ball import Ball


@pytest.mark.parametrize("eps", [0.25, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("scale", [0.5, 1.0, 5.0])
def test_images_of_few_levels_are_projected_into_the_ball(eps: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(17, (2000, 1, 8, 8), generator=generator) / 16
    x[:, :, ::2] = 0
    ball = Ball("l1", eps)
    assert bool(ball.holds(ball.project(x + scale * torch.randn(x.shape, generator=generator), x), x).all())
