"""Lab D's class images and impostors as published, on a linear network whose gradients are known."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from stresslens.plugins import Grid, Split


@pytest.fixture(scope="module")
def published() -> ModuleType:
    path = Path(__file__).parents[3] / "studies" / "plugins" / "inside_as_published.py"
    spec = importlib.util.spec_from_file_location("inside_as_published", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linear(weight: float, bias: float = 0.0) -> nn.Module:
    """Two classes of 1×2×2 pixels: class 1 has `weight` in every pixel, class 0 has `bias`."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0] * 4, [weight] * 4]))
        net[1].bias.copy_(torch.tensor([bias, 0.0]))
    return net


def split() -> Split:
    images = torch.stack([torch.full((1, 2, 2), 0.0), torch.full((1, 2, 2), 1.0)])
    return Split(images, torch.tensor([0, 1]), 1.0)


@pytest.mark.parametrize(
    ("weight", "moved"),
    [(2.0, 10 * 0.05 * 2.0), (50.0, 10 * 0.3)],
    ids=["steps of 0.05 times the gradient", "each at most 0.3"],
)
def test_class_image_moves_as_far_as_its_steps(weight: float, moved: float, published: ModuleType) -> None:
    """Class 0 has no gradient, so the mean over both classes is half the way."""
    panel = published.class_image_as_published(linear(weight), torch.zeros(1, 1, 2, 2), ["a", "b"], steps=10)
    assert panel.facts["moved"] == pytest.approx(moved / 2, rel=1e-4)
    assert panel.facts["taken"] == 1  # 4 · 128 · weight > 0: both are called b
    assert "1 of 2 class images are classified" in panel.said[0]
    (grid,) = panel.parts
    assert isinstance(grid, Grid)
    assert [cell.caption for cell in grid.rows[0] if cell] == ["b 100.0 %", "b 100.0 %"]


def test_class_image_starts_at_grey_with_little_noise(published: ModuleType) -> None:
    start = published._noise(torch.zeros(100, 1, 28, 28), 128.0, 1.0)
    assert float(start.mean()) == pytest.approx(128, abs=0.02)
    assert float(start.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("bias", "taken"), [(0.0, 1), (1e6, 1), (4 * 128 * 2.0, 2)], ids=str)
def test_impostors_say_how_many_are_taken(bias: float, taken: int, published: ModuleType) -> None:
    """With as much for class 0 as an image of grey 128 has for class 1, each is decided by the
    ascent: toward 1 it rises, toward 0 the noise decides."""
    panel = published.inert_impostor(linear(2.0, bias + 40 * (bias == 1024)), split(), ["a", "b"], steps=100)
    assert panel.facts["taken"] == taken
    assert panel.said[0].startswith(f"{taken} of 2 impostors are classified")


@pytest.mark.parametrize(("beta", "inert"), [(0.001, True), (2.0, False)], ids=str)
def test_the_prior_is_called_inert_only_where_it_is(beta: float, inert: bool, published: ModuleType) -> None:
    """The first impostor looks like class 0, at 0, and the second like class 1, at 255: a pixel is
    pushed by lr · 2β · distance / pixels in each step."""
    panel = published.inert_impostor(
        linear(0.0), split(), ["a", "b"], beta=beta, steps=10, limit=1e9, noise=0.0
    )
    kept = 1 - 0.05 * 2 * beta / 4  # of the distance, after a step
    assert panel.facts["pushed"] == pytest.approx(128 * (1 - kept**10), rel=1e-3)
    assert ("no visible effect" in panel.said[0]) is inert
